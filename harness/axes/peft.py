"""PEFT: which parameters a stage trains."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from harness.errors import EffectError, IncompatibleError
from harness.method import Method

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn


class Peft(Method):
    """A parameterisation of the update. `apply` before training; the artifact then holds what
    `delta` says: all weights, or an adapter in PEFT's own format.
    """

    axis = "peft"
    default = "full"
    delta: str = "adapter"
    """What a trained artifact stores: `weights` (full) or `adapter`."""
    mergeable: bool = False
    """Whether the update can be folded into unpacked weights."""
    reversible: bool = True
    """Whether `disabled` gives back the model as it was before `apply`."""

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """The model with exactly the method's parameters requiring gradients.

        Raises: EffectError listing the modules that exist, if target modules match nothing
        """
        raise NotImplementedError

    def merge(self, model: nn.Module) -> nn.Module:
        """The plain model with the update folded in.

        Raises: IncompatibleError where the method or packed weights do not allow it
        """
        raise IncompatibleError(f"peft={self.name} cannot be merged: its update is no change of weights")

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the adapter in PEFT's own format."""
        for config in model.peft_config.values():  # type: ignore[union-attr,operator]
            config.base_model_name_or_path = None
        model.save_pretrained(directory)  # type: ignore[operator]

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        """The base model with a saved adapter on it."""
        from peft import PeftModel

        return PeftModel.from_pretrained(model, directory, is_trainable=trainable)  # type: ignore[no-any-return]

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the context the model computes what it did before `apply`; where `reversible`."""
        return model.disable_adapter()  # type: ignore[operator,no-any-return]

    def trainable_parameters(self, model: nn.Module) -> int | None:
        """Parameters that `apply` will train on this model, by formula; None where none is known."""
        return None


def match_modules(model: nn.Module, patterns: Iterable[str], *, where: str) -> list[str]:
    """Names of modules whose last part, or whole name, is one of `patterns`.

    Raises: EffectError listing the names that exist
    """
    patterns = list(patterns)
    names = [name for name, _ in model.named_modules() if name]
    found = [n for n in names if n in patterns or n.rpartition(".")[2] in patterns]
    if not found:
        known = sorted({name.rpartition(".")[2] for name in names} - {str(i) for i in range(1000)})
        raise EffectError(f"{where}={patterns} matches no module; the model has {', '.join(known)}")
    return found
