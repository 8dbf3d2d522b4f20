"""Uniform grids: values at equal distances, a scale (and zero) for a tensor, channel or group."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from harness import (
    ConfigError,
    Quantizer,
    packed_width,
)

HEADROOM = 2**14
"""Where a layer's largest scale is put in its number format if some scale does not fit as it is: room above
for scales set later (GPTQ's groups) and, in float16, scales 2**27 times as small in full precision."""


class Granularity(StrEnum):
    """How many weights share a scale."""

    tensor = "tensor"
    channel = "channel"
    group = "group"


class ScaleDtype(StrEnum):
    """Number format of scales."""

    float16 = "float16"
    float32 = "float32"


@dataclass(frozen=True, kw_only=True)
class UniformConfig(Quantizer.Config):
    """Options of every quantizer on a uniform grid."""

    bits: int = 4
    """Bits of a code (2 to 8)."""
    granularity: Granularity = Granularity.channel
    """Weights that share a scale: the tensor, an output channel, or `group_size` inputs of one channel."""
    group_size: int = 64
    """Inputs that share a scale where granularity is `group`; must divide every layer's inputs."""
    symmetric: bool = False
    """Whether the grid is centred on zero; else it spans the weights, and each scale has a zero point."""
    scale_dtype: ScaleDtype = ScaleDtype.float16
    """Number format of the scales, relative to a power of two that the layer stores."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"quantizer.bits={self.bits} must be between 2 and 8")
        if self.group_size < 1:
            raise ConfigError(f"quantizer.group_size={self.group_size} must be at least 1")

    def groups(self, in_features: int) -> int:
        """Scales in one row."""
        return in_features // self.group_size if self.granularity is Granularity.group else 1

    def dtype(self) -> torch.dtype:
        """Number format of the scales."""
        return getattr(torch, self.scale_dtype.value)  # type: ignore[no-any-return]

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        """Codes, scales and zeros over the weights; a layer's exponent, 8 bits in all, is left out."""
        scales = 1 if self.granularity is Granularity.tensor else out_features * self.groups(in_features)
        per_scale = torch.finfo(self.dtype()).bits + (0 if self.symmetric else 8)
        codes = 8 * packed_width(in_features, self.bits) * out_features
        return (codes + scales * per_scale) / (in_features * out_features)

    def layer_problem(self, in_features: int) -> str | None:
        """Why a layer with these inputs does not fit."""
        if self.granularity is Granularity.group and in_features % self.group_size:
            divisors = [g for g in (16, 32, 64, 128, 256) if in_features % g == 0]
            return (
                f"quantizer.group_size={self.group_size} must divide its {in_features} inputs; "
                f"use one of {divisors or [in_features]} or granularity=channel"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Scales and zeros of a weight; x_q = round(x / scale) + zero, clamped to the codes.

    Shapes: scale and zero are (rows, groups), (1, 1) for a whole tensor; weights are (rows, in); exponent is
    a scalar integer: scales over 2^exponent are exact in their stored format
    """

    scale: Tensor
    zero: Tensor
    bits: int
    exponent: Tensor

    def codes(self, weight: Tensor) -> Tensor:
        """Codes (rows x in, float) of weights."""
        grouped = weight.unflatten(-1, (self.scale.shape[-1], -1))
        codes = torch.round(grouped / self.scale[..., None]) + self.zero[..., None]
        return codes.clamp(0, 2**self.bits - 1).flatten(-2)

    def values(self, codes: Tensor) -> Tensor:
        """Weights that codes stand for."""
        grouped = codes.unflatten(-1, (self.scale.shape[-1], -1))
        values: Tensor = (grouped - self.zero[..., None]) * self.scale[..., None]
        return values.flatten(-2)

    def nearest(self, weight: Tensor) -> Tensor:
        """Weights rounded to the grid."""
        return self.values(self.codes(weight))


def make_grid(weight: Tensor, config: UniformConfig, *, exponent: Tensor | None = None) -> Grid:
    """The grid that spans the weights: x_q = R(x / S) - Z (survey, section 5.3), with Z <= 0 stored negated.

    A symmetric grid has S = 2 max|x| / (2^b - 1) and its zero at code 2^(b - 1), as in auto_gptq: all 2^b
    levels are used, and no weight is more than half a step away. Scales are rounded to their stored format
    first, so that what is stored is what is used. `exponent` is the grid's that the layer has already.
    """
    low, high = grouped_weights(weight, config).aminmax(dim=-1)
    return span(low, high, config, exponent=exponent)


def grouped_weights(weight: Tensor, config: UniformConfig) -> Tensor:
    """Weights (rows x in) by what shares a scale: rows x groups x size, 1 x 1 x all for a whole tensor."""
    if config.granularity is Granularity.tensor:
        return weight.reshape(1, 1, -1)
    grouped: Tensor = weight.unflatten(-1, (config.groups(weight.shape[-1]), -1))
    return grouped


def span(low: Tensor, high: Tensor, config: UniformConfig, *, exponent: Tensor | None = None) -> Grid:
    """The grid over ranges of weights; zero is always inside.

    Shapes: low and high (rows, groups)
    """
    levels = 2**config.bits - 1
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (2 * torch.maximum(-low, high) if config.symmetric else high - low) / levels
    # Half a step beyond the grid's ends the largest weight is still half a step away from a code: a larger
    # scale keeps the upper end so, a smaller one gives a lower end the lowest code.
    up = high >= -low if config.symmetric else torch.ones_like(low, dtype=torch.bool)
    exponent = exponent_of(scale, config.dtype()) if exponent is None else exponent
    scale = round_scale(scale, exponent, config.dtype(), up=up)
    if config.symmetric:
        zero = torch.full_like(scale, 2 ** (config.bits - 1))
    else:
        zero = torch.round(-low / scale).clamp(0, levels)
    return Grid(scale=scale, zero=zero, bits=config.bits, exponent=exponent)


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
