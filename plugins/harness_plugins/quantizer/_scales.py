"""How scales are stored: in a small number format, relative to a power of two that the layer keeps."""

from __future__ import annotations

import torch
from torch import Tensor

HEADROOM = 2**14
"""Where a layer's largest scale is put in its number format if some scale does not fit as it is: room above
for scales set later (GPTQ's groups) and, in float16, scales 2**27 times as small in full precision."""


def exponent_of(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where the format holds all scales in full precision and twice as large ones; else the exponent
    that puts the largest between HEADROOM / 2 and HEADROOM."""
    found, limits = scale[scale > 0], torch.finfo(dtype)
    if not len(found) or (found.min() >= limits.tiny and 2 * found.max() <= limits.max):
        return torch.zeros((), dtype=torch.int32, device=scale.device)
    _, exponent = torch.frexp(found.max().float() / HEADROOM)
    return exponent.clamp(-60, 60)


def round_scale(scale: Tensor, exponent: Tensor, dtype: torch.dtype, *, up: Tensor) -> Tensor:
    """Scales as they are stored: rounded up in the format where `up` says so, else down; never zero."""
    relative = torch.ldexp(scale, -exponent).clamp(max=torch.finfo(dtype).max)
    stored = relative.to(dtype)
    infinity = torch.full_like(stored, torch.inf)
    stored = torch.where(up & (stored.to(scale.dtype) < relative), stored.nextafter(infinity), stored)
    stored = torch.where(~up & (stored.to(scale.dtype) > relative), stored.nextafter(-infinity), stored)
    return torch.ldexp(stored.clamp(min=2.0**-24).to(scale.dtype), exponent)
