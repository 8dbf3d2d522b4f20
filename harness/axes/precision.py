"""Precision: number formats of training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.ops.loss_scaler import LossScaler
    from harness.ops.stored_weights import StoredWeights


class Precision(Method):
    """Number format of compute; weights and optimizer state stay fp32 unless the method says otherwise."""

    axis = "precision"
    default = "fp32"
    moves_facts = frozenset({"dtype"})
    rounding_bytes: int = 0
    """Bytes that stand beside each number of an operand while a product of it is computed; for plans."""

    @abstractmethod
    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        """Context of forward and loss."""
        raise NotImplementedError

    def compute_dtype(self) -> torch.dtype:
        """Format of matrix products; peak rates are stated for it."""
        import torch

        return torch.float32

    def scaler(self, device_type: str) -> LossScaler | None:
        """Loss scaler where the format needs one."""
        return None

    def stored(self, parameters: Sequence[nn.Parameter]) -> StoredWeights:
        """How these trained weights are kept between steps; as they are unless the method says otherwise."""
        from harness.ops.stored_weights import StoredWeights

        return StoredWeights()

    def bytes_per_weight(self) -> int:
        """Bytes of a trained weight, and of what is kept beside it, between steps."""
        return 4
