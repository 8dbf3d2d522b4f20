"""Packing of small integer codes into bytes, any width from 1 to 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor


def packed_width(num_codes: int, bits: int) -> int:
    """Bytes that `num_codes` codes of `bits` bits take in one row."""
    if bits in (1, 2, 4, 8):
        per_byte = 8 // bits
        return -(-num_codes // per_byte)
    return -(-num_codes // 8) * bits


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes in [0, 2**bits) as bytes, rows padded with zeros to whole bytes.

    1, 2 and 4 bits share a byte, the lowest first; other widths store eight codes as `bits` bit planes.
    Shapes: (..., n) integers -> (..., packed_width(n, bits)) uint8
    """
    codes = codes.to(torch.uint8)
    if bits == 8:
        return codes.contiguous()
    per_unit = 8 // bits if bits in (1, 2, 4) else 8
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % per_unit))
    codes = codes.unflatten(-1, (-1, per_unit))
    if bits in (1, 2, 4):
        packed = codes[..., 0].clone()
        for i in range(1, per_unit):
            packed |= codes[..., i] << (bits * i)
        return packed
    lanes = torch.arange(8, dtype=torch.uint8, device=codes.device)
    planes = [(((codes >> plane) & 1) << lanes).sum(-1, dtype=torch.uint8) for plane in range(bits)]
    return torch.stack(planes, dim=-1).flatten(-2)


def unpack_codes(packed: Tensor, bits: int, num_codes: int) -> Tensor:
    """The codes that `pack_codes` stored.

    Shapes: (..., packed_width(n, bits)) uint8 -> (..., n) uint8
    """
    if bits == 8:
        return packed
    if bits in (1, 2, 4):
        mask = (1 << bits) - 1
        parts = [(packed >> (bits * i)) & mask for i in range(8 // bits)]
        return torch.stack(parts, dim=-1).flatten(-2)[..., :num_codes]
    planes = packed.unflatten(-1, (-1, bits))
    lanes = torch.arange(8, dtype=torch.uint8, device=packed.device)
    codes = torch.zeros((*planes.shape[:-1], 8), dtype=torch.uint8, device=packed.device)
    for plane in range(bits):
        codes |= ((planes[..., plane : plane + 1] >> lanes) & 1) << plane
    return codes.flatten(-2)[..., :num_codes]


def unpack_levels(packed: Tensor, bits: int, num_codes: int, levels: Tensor) -> Tensor:
    """The level that each stored code stands for; 2 and 4 bits are looked up a whole byte at a time.

    Shapes: (..., packed_width(n, bits)) uint8, levels 2**bits float32 -> (..., n) float32
    """
    if bits not in (2, 4):
        codes = unpack_codes(packed, bits, num_codes)
        return torch.index_select(levels, 0, codes.flatten().int()).view(codes.shape)
    every_byte = torch.arange(256, dtype=torch.uint8, device=packed.device)[:, None]
    table = levels[unpack_codes(every_byte, bits, 8 // bits).long()]
    # One element as wide as a byte's levels: a gather of scalars is several times as fast as one of rows.
    wide = table.view(torch.int64 if bits == 4 else torch.complex128).flatten()
    values = torch.index_select(wide, 0, packed.flatten().int()).view(torch.float32)
    return values.view(*packed.shape[:-1], -1)[..., :num_codes]
