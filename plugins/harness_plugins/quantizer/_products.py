"""Products with codes on a uniform grid that never make the dense weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_GROUPS = (256, 128, 64, 32)
"""Inputs that share a scale in torch's CPU kernel for 4-bit codes."""
TILE_OUTPUTS = 16
"""Its outputs come in multiples of so many."""
FEW_ROWS = 16
"""Inputs at once up to which kernels on codes are faster than dequantizing, which pays once for all rows."""


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


def make_tiles(codes: Tensor, scale: Tensor, middle: Tensor, *, bits: int) -> Tiles | None:
    """The same weight in the kernel's layout; None where it has none for these sizes.

    Codes move so that the middle one, 2^(bits - 1), meets the kernel's, 8: what bfloat16 rounds is small.
    Shapes: codes out x in integers below 2^bits, at most 4 bits; scale, middle (the value of the middle code)
    out x groups or 1 x 1, float32
    """
    out_features, in_features = codes.shape
    shared = in_features // scale.shape[-1]
    group = next((size for size in TILE_GROUPS if shared % size == 0), None)
    if group is None or out_features % TILE_OUTPUTS:
        return None
    after = None
    if scale.shape[-1] == 1 and bool((scale != 0).all()):
        after, middle, scale = scale[:, 0], middle / scale, torch.ones_like(scale)
    pairs = torch.stack([scale, middle], -1).expand(out_features, -1, -1)
    pairs = pairs.repeat_interleave(shared // group, dim=1).transpose(0, 1)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes.int() + 8 - 2 ** (bits - 1), 1)
    return Tiles(packed, pairs.contiguous().bfloat16(), group, after)


@dataclass(frozen=True)
class Bytes:
    """Codes of 8 bits as torch's CPU kernel for bfloat16 inputs wants them.

    Shapes: codes out x in int8, less 128; scale, and middle, the value of code 128, out or 1, float32
    """

    codes: Tensor
    scale: Tensor
    middle: Tensor

    def product(self, x: Tensor) -> Tensor:
        """x W^T (rows x in, bfloat16); scales multiply the output, in which they lose no digits."""
        plain = torch.ones(len(self.codes), dtype=x.dtype)
        y = torch._weight_int8pack_mm(x, self.codes, plain).float() * self.scale
        return (y + x.float().sum(-1, keepdim=True) * self.middle).to(x.dtype)


def make_bytes(codes: Tensor, scale: Tensor, middle: Tensor) -> Bytes | None:
    """The same weight in the kernel's layout; None where rows have more than one scale.

    Shapes: codes out x in uint8; scale, middle out x groups or 1 x 1, float32
    """
    if scale.shape[-1] > 1:
        return None
    return Bytes((codes ^ 128).view(torch.int8), scale[:, 0], middle[:, 0])
