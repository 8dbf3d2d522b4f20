"""PEFT: which parameters a stage trains."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from harness.method import Method

if TYPE_CHECKING:
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
        raise NotImplementedError

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the adapter in PEFT's own format."""
        model.save_pretrained(directory)  # type: ignore[operator]

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        """The base model with a saved adapter on it."""
        from peft import PeftModel

        return PeftModel.from_pretrained(model, directory, is_trainable=trainable)  # type: ignore[no-any-return]
