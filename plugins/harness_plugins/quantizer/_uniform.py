"""Uniform grids: codes at equal distances, a scale (and zero) for a tensor, channel or group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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
    unpack_codes,
    unpack_levels,
    weight_matrix,
)

from ._products import TILE_ROWS, Tiles, make_tiles, plane_product
from ._scales import exponent_of, round_scale


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


class UniformLinear(PackedLinear):
    """Packed codes on a uniform grid.

    Shapes: codes out x packed_width(in, bits) uint8; scale, zero out x groups or 1 x 1; exponent int8, one
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    exponent: Tensor

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
        self._tiles: tuple[Tensor, Tiles | None] | None = None
        self.register_buffer("exponent", torch.zeros((), dtype=torch.int8))

    def fill(self, codes: Tensor, grid: Grid) -> UniformLinear:
        """Store codes (out x in) and their grid."""
        self.to(codes.device)
        self._tiles = None
        self.codes.copy_(pack_codes(codes, self.bits))
        self.exponent.copy_(grid.exponent)
        self.scale.copy_(torch.ldexp(grid.scale, -grid.exponent))
        if self.zero is not None:
            self.zero.copy_(grid.zero)
        return self

    def scales(self) -> Tensor:
        """Scales as they multiply codes (out x groups or 1 x 1, float32)."""
        return torch.ldexp(self.scale.float(), self.exponent.int())

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
        grouped.mul_(self.scales()[..., None])
        return weight

    def zeros(self) -> Tensor:
        """The code that stands for zero, of each scale (float32)."""
        middle = torch.full_like(self.scale, 2 ** (self.bits - 1), dtype=torch.float32)
        return middle if self.zero is None else self.zero.float()

    def product(self, x: Tensor) -> Tensor:
        y = self.packed_product(x.reshape(-1, self.in_features)) if x.device.type == "cpu" else None
        return super().product(x) if y is None else y.view(*x.shape[:-1], self.out_features)

    def packed_product(self, x: Tensor) -> Tensor | None:
        """x W^T (rows x in) from the codes as they lie; None where a dense weight is as fast."""
        if x.dtype is torch.bfloat16 and len(x) <= TILE_ROWS:
            tiles = self.tiles()
            return None if tiles is None else tiles.product(x)
        whole = self.in_features // self.scale.shape[-1] % (8 // self.bits) == 0
        if x.dtype is torch.float32 and self.bits in (2, 4, 8) and whole:
            return plane_product(self.codes, x, self.scales(), self.zeros(), bits=self.bits)
        return None

    def tiles(self) -> Tiles | None:
        """The codes laid out for the kernel of few rows, made when first asked for."""
        if self.bits > 4:
            return None
        if self._tiles is None or self._tiles[0] is not self.codes:
            codes = unpack_codes(self.codes, self.bits, self.in_features)
            self._tiles = (self.codes, make_tiles(codes, self.scales(), self.zeros(), bits=self.bits))
        return self._tiles[1]

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._tiles = None

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
