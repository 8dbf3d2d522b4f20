"""How trained weights are kept between steps: as they are, or in a format of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class StoredWeights:
    """Weights that stand in the model as they are updated; other ways of keeping them derive from it.

    State: none of its own; checkpoints are written and read while the weights are `whole`
    """

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Weights and gradients in the format of updates, while an optimizer or a checkpoint needs them."""
        yield

    def release(self) -> None:
        """Called once when training is over: leaves the weights whole."""

    def tensors(self) -> list[Tensor]:
        """What is kept beside the model's own tensors."""
        return []
