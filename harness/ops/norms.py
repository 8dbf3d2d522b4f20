"""Normalisation layers that torch does not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OffsetRMSNorm(nn.RMSNorm):
    """x / RMS(x) * (1 + weight), computed in single precision at least, as Gemma stores its norms.

    Shapes: B...D over the last dimension
    """

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        normed = F.rms_norm(x.to(wide), self.normalized_shape, eps=self.eps)
        return (normed * (1 + self.weight.to(wide))).to(x.dtype)


def rms_norm(size: int, *, eps: float, offset: bool) -> nn.RMSNorm:
    """An RMSNorm over the last dimension; `offset` counts its weight from 1."""
    return OffsetRMSNorm(size, eps=eps) if offset else nn.RMSNorm(size, eps=eps)
