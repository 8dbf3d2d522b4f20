"""BitFit: only biases are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness import Kept, Method, PackedLinear, hookimpl, linear_layers

from ._own import OwnPeft
from ._scope import layer_size


class BitFit(OwnPeft):
    """Trains the biases of linear layers and norms; zero biases are added to linear layers without one.

    Paper: Ben Zaken et al. 2021, arXiv:2106.10199
    Differs: models such as Llama have no bias; there the added ones are all that is trained
    """

    name = "bitfit"
    splittable = True
    kept = Kept(inputs=False)

    def apply(self, model: nn.Module) -> nn.Module:
        model.requires_grad_(False)
        for layer in self.layers(model):
            if layer.bias is None:
                assert isinstance(layer, nn.Linear)
                like = next(layer.buffers() if isinstance(layer, PackedLinear) else layer.parameters())
                layer.bias = nn.Parameter(torch.zeros(layer.out_features, device=like.device))
        for parameter in self.biases(model).values():
            parameter.requires_grad_(True)
        start: Any = {name: bias.detach().clone() for name, bias in self.biases(model).items()}
        model.bias_start = start
        return model

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Linear layers, packed ones included, without the output head."""
        packed = [m for m in model.modules() if isinstance(m, PackedLinear)]
        return [*linear_layers(model).values(), *packed]

    def biases(self, model: nn.Module) -> dict[str, Tensor]:
        """All bias parameters by name."""
        return {n: p for n, p in model.named_parameters() if n.rpartition(".")[2] == "bias"}

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[None]:
        biases = self.biases(model)
        trained = {name: bias.detach().clone() for name, bias in biases.items()}
        with torch.no_grad():
            for name, bias in biases.items():
                bias.copy_(model.bias_start[name])  # type: ignore[index]
        try:
            yield
        finally:
            with torch.no_grad():
                for name, bias in biases.items():
                    bias.copy_(trained[name])

    def trainable_parameters(self, model: nn.Module) -> int:
        """Outputs of all linear layers, and the biases of norms."""
        linear = sum(layer_size(layer)[1] for layer in self.layers(model))
        own = {id(m.bias) for m in self.layers(model) if m.bias is not None}
        others = sum(p.numel() for p in self.biases(model).values() if id(p) not in own)
        return linear + others


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BitFit]
