"""Layers and quantizers that store codes on a uniform grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    CellView,
    PackedLayout,
    PackedLinear,
    Problem,
    Quantizer,
    pack_codes,
    packed_width,
    unpack_codes,
    unpack_levels,
    weight_matrix,
)

from ._grid import Granularity, Grid, UniformConfig, make_grid
from ._products import FEW_ROWS, Bytes, Tiles, make_bytes, make_tiles, plane_product


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
        self._laid_out: tuple[Tensor, Tiles | Bytes | None] | None = None
        self.register_buffer("exponent", torch.zeros((), dtype=torch.int8))

    def fill(self, codes: Tensor, grid: Grid) -> UniformLinear:
        """Store codes (out x in) and their grid."""
        self.to(codes.device)
        self._laid_out = None
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
        if x.dtype is torch.bfloat16 and len(x) <= FEW_ROWS:
            laid_out = self.for_few_rows()
            return None if laid_out is None else laid_out.product(x)
        whole = self.in_features // self.scale.shape[-1] % (8 // self.bits) == 0
        if x.dtype is torch.float32 and self.bits in (2, 4, 8) and whole:
            return plane_product(self.codes, x, self.scales(), self.zeros(), bits=self.bits)
        return None

    def for_few_rows(self) -> Tiles | Bytes | None:
        """The codes laid out for a kernel of few rows, made when first asked for; None without one."""
        if 4 < self.bits < 8:
            return None
        if self._laid_out is None or self._laid_out[0] is not self.codes:
            scales = self.scales()
            middle = (2 ** (self.bits - 1) - self.zeros()) * scales
            if self.bits == 8:
                self._laid_out = (self.codes, make_bytes(self.codes, scales, middle))
            else:
                codes = unpack_codes(self.codes, self.bits, self.in_features)
                self._laid_out = (self.codes, make_tiles(codes, scales, middle, bits=self.bits))
        return self._laid_out[1]

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._laid_out = None

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

    def layouts(self) -> Sequence[str]:
        return ("gptq", "awq", "compressed-tensors")

    def lay_out(
        self, layers: Mapping[str, PackedLinear], layout: str, *, skipped: Sequence[str]
    ) -> PackedLayout:
        from ._layouts import lay_out

        return lay_out(layers, self.config, layout, skipped=skipped)

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return self.config.bits_per_weight(in_features, out_features)

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        return self.config.layer_problem(in_features)

    def round(self, layer: nn.Module) -> UniformLinear:
        """A layer with its weights at the nearest codes."""
        packed, weight = self.empty_layer(layer), weight_matrix(layer).float()
        grid = make_grid(weight, self.config)
        return packed.fill(grid.codes(weight), grid)
