"""Uniform grids: codes at equal distances, a scale (and zero) for a tensor, channel or group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from harness import (
    CellView,
    ConfigError,
    PackedLinear,
    Problem,
    Quantizer,
    pack_codes,
    packed_width,
    unpack_levels,
    weight_matrix,
)

_SMALLEST = {torch.float16: 6.2e-5, torch.float32: 1e-30}
"""Smallest scale a format holds without losing precision."""


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
    symmetric: bool = True
    """Whether the grid is centred on zero; else a zero point is stored for each scale."""
    scale_dtype: ScaleDtype = ScaleDtype.float16
    """Number format of the scales."""

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
        """Codes, scales and zeros over the weights."""
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

    Shapes: scale and zero are (rows, groups), (1, 1) for a whole tensor; weights are (rows, in)
    """

    scale: Tensor
    zero: Tensor
    bits: int

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


def make_grid(weight: Tensor, config: UniformConfig) -> Grid:
    """The grid that spans the weights: x_q = R(x / S) - Z (survey, section 5.3), with Z <= 0 stored negated.

    Scales are rounded to their stored format first, so that what is stored is what is used.
    """
    levels = 2**config.bits - 1
    if config.granularity is Granularity.tensor:
        grouped = weight.reshape(1, 1, -1)
    else:
        grouped = weight.unflatten(-1, (config.groups(weight.shape[-1]), -1))
    if config.symmetric:
        scale = grouped.abs().amax(-1) / (levels // 2)
    else:
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scale = (high - low) / levels
    dtype = config.dtype()
    scale = scale.clamp(min=_SMALLEST[dtype]).to(dtype).to(weight.dtype)
    if config.symmetric:
        zero = torch.full_like(scale, 2 ** (config.bits - 1))
    else:
        zero = torch.round(-low / scale).clamp(0, levels)
    return Grid(scale=scale, zero=zero, bits=config.bits)


class UniformLinear(PackedLinear):
    """Packed codes on a uniform grid.

    Shapes: codes out x packed_width(in, bits) uint8; scale, zero out x groups or 1 x 1
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, config: UniformConfig
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.bits = config.bits
        rows = 1 if config.granularity is Granularity.tensor else out_features
        shape = (rows, config.groups(in_features))
        codes = torch.zeros(out_features, packed_width(in_features, config.bits), dtype=torch.uint8)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", torch.zeros(shape, dtype=config.dtype()))
        self.register_buffer("zero", None if config.symmetric else torch.zeros(shape, dtype=torch.uint8))

    def fill(self, codes: Tensor, grid: Grid) -> UniformLinear:
        """Store codes (out x in) and their grid."""
        device = codes.device
        self.to(device)
        self.codes.copy_(pack_codes(codes, self.bits))
        self.scale.copy_(grid.scale)
        if self.zero is not None:
            self.zero.copy_(grid.zero)
        return self

    def dequantize(self) -> Tensor:
        """(code - zero) * scale, float32."""
        middle = 2 ** (self.bits - 1) if self.zero is None else 0
        if self.bits == 8:
            weight = self.codes.float().sub_(middle)
        else:
            levels = torch.arange(2**self.bits, dtype=torch.float32, device=self.codes.device) - middle
            weight = unpack_levels(self.codes, self.bits, self.in_features, levels)
        grouped = weight.unflatten(-1, (self.scale.shape[-1], -1))
        if self.zero is not None:
            grouped.sub_(self.zero[..., None].float())
        grouped.mul_(self.scale[..., None].float())
        return weight

    def extra_repr(self) -> str:
        """What is stored."""
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, scales={tuple(self.scale.shape)}"


class UniformQuantizer(Quantizer):
    """Base of the quantizers that store codes on a uniform grid."""

    Config = UniformConfig
    config: UniformConfig

    @classmethod
    def check(cls, config: UniformConfig, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        if config.granularity is not Granularity.group and config.group_size != UniformConfig.group_size:
            yield Problem(
                where="quantizer.group_size",
                message=f"{config.group_size} changes nothing with quantizer.granularity="
                f"{config.granularity}; set quantizer.granularity=group, or drop it",
            )

    def empty_layer(self, layer: nn.Module) -> UniformLinear:
        return UniformLinear(*self.fitting(layer), self.config)

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return self.config.bits_per_weight(in_features, out_features)

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        return self.config.layer_problem(in_features)

    def round(self, layer: nn.Module) -> UniformLinear:
        """A layer with its weights at the nearest codes."""
        packed, weight = self.empty_layer(layer), weight_matrix(layer).float()
        grid = make_grid(weight, self.config)
        return packed.fill(grid.codes(weight), grid)
