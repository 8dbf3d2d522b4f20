"""Full tuning: every parameter is trained."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from harness import IncompatibleError, Method, PackedLinear, Peft, hookimpl


class Full(Peft):
    """Trains all parameters; the artifact holds all weights.

    Raises: IncompatibleError on packed weights, which have no gradients
    """

    name = "full"
    splittable = True
    delta = "weights"
    mergeable = True
    reversible = False

    def apply(self, model: nn.Module) -> nn.Module:
        if any(isinstance(module, PackedLinear) for module in model.modules()):
            raise IncompatibleError(
                "peft=full cannot train packed weights; use peft=lora, or quantize after tuning"
            )
        return model.float().requires_grad_(True)

    def merge(self, model: nn.Module) -> nn.Module:
        return model

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        raise IncompatibleError("peft=full cannot be disabled: it overwrites the weights")

    def trainable_parameters(self, model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Full]
