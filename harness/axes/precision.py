"""Precision: number formats of training."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    import torch


class Precision(Method):
    """Number format of compute; weights and optimizer state stay fp32 unless the method says otherwise."""

    axis = "precision"
    default = "fp32"

    @abstractmethod
    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        """Context of forward and loss."""
        raise NotImplementedError

    def compute_dtype(self) -> torch.dtype:
        """Format of matrix products; peak rates are stated for it."""
        import torch

        return torch.float32

    def scaler(self, device_type: str) -> torch.amp.GradScaler | None:
        """Loss scaler where the format needs one."""
        return None
