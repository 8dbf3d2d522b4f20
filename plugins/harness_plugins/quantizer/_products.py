"""Products with codes on a uniform grid that never make the dense weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_GROUPS = (256, 128, 64, 32)
"""Inputs that share a scale in torch's CPU kernel for 4-bit codes."""
TILE_OUTPUTS = 16
"""Its outputs come in multiples of so many."""
TILE_ROWS = 16
"""Inputs at once up to which that kernel is faster than dequantizing, which pays once for all rows."""


def plane_product(codes: Tensor, x: Tensor, scale: Tensor, zero: Tensor, *, bits: int) -> Tensor:
    """x W^T for W = (code - zero) * scale, codes packed 8 / bits to a byte.

    The codes at one place of every byte are a plane that is masked, made float and scaled as it lies; it
    meets the inputs at that place.
    Shapes: codes out x in * bits / 8 uint8; x rows x in; scale, zero out x groups or 1 x 1, float32
    Error: that of float32 products
    """
    places, groups = 8 // bits, scale.shape[-1]
    y = x.new_zeros(())
    for place in range(places):
        plane = codes if places == 1 else (codes >> (bits * place)) & (2**bits - 1)
        weight = plane.float()
        weight.unflatten(-1, (groups, -1)).sub_(zero[..., None]).mul_(scale[..., None])
        y = torch.addmm(y, x[:, place::places], weight.T)
    return y


@dataclass(frozen=True)
class Tiles:
    """Codes of at most 4 bits as torch's CPU kernel for bfloat16 inputs wants them.

    Shapes: codes out x in / 2 uint8; scales in / group x out x 2 bfloat16: scale, and the value of code 8;
    after, out or 1, float32: scales of whole rows, which would lose digits in bfloat16, multiply the output
    """

    codes: Tensor
    scales: Tensor
    group: int
    after: Tensor | None

    def product(self, x: Tensor) -> Tensor:
        """x W^T (rows x in, bfloat16)."""
        y = torch._weight_int4pack_mm_for_cpu(x, self.codes, self.group, self.scales)
        return y if self.after is None else (y.float() * self.after).to(y.dtype)


def make_tiles(codes: Tensor, scale: Tensor, zero: Tensor, *, bits: int) -> Tiles | None:
    """The same weight in the kernel's layout; None where it has none for these sizes.

    Codes move so that the middle one meets the kernel's, 8: what bfloat16 rounds is small there.
    Shapes: codes out x in integers below 2^bits, at most 4 bits; scale, zero out x groups or 1 x 1, float32
    """
    out_features, in_features = codes.shape
    shared = in_features // scale.shape[-1]
    group = next((size for size in TILE_GROUPS if shared % size == 0), None)
    if group is None or out_features % TILE_OUTPUTS:
        return None
    middle, after = 2 ** (bits - 1), None
    if scale.shape[-1] == 1:
        after, scale = scale[:, 0], torch.ones_like(scale)
    pairs = torch.stack([scale, (middle - zero) * scale], -1).expand(out_features, -1, -1)
    pairs = pairs.repeat_interleave(shared // group, dim=1).transpose(0, 1)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes.int() + 8 - middle, 1)
    return Tiles(packed, pairs.contiguous().bfloat16(), group, after)
