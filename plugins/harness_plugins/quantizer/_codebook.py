"""Codebooks: 4-bit codes that index sixteen levels, scaled by the largest weight of each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from harness import (
    Calibration,
    ConfigError,
    PackedLayout,
    PackedLinear,
    Quantizer,
    pack_codes,
    packed_width,
    unpack_levels,
    weight_matrix,
)

NESTED_BLOCK = 256
"""Block maxima that share a scale under double quantization."""
KERNEL_BLOCKS = (64, 128, 256, 512, 1024)
"""Block sizes that bitsandbytes unpacks exactly."""


@dataclass(frozen=True, kw_only=True)
class CodebookConfig(Quantizer.Config):
    """Options of every quantizer on a codebook."""

    block_size: int = 64
    """Weights, in row order, that share a scale."""
    double_quantization: bool = False
    """Whether the scales are themselves stored in 8 bits."""

    def __post_init__(self) -> None:
        if self.block_size < 2:
            raise ConfigError(f"quantizer.block_size={self.block_size} must be at least 2")


def blocks_of(values: Tensor, size: int) -> Tensor:
    """Values in rows of `size`, the last one padded with zeros."""
    flat = values.flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % size)).view(-1, size)


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Index of the level closest to each value; levels ascend."""
    middle = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(values.contiguous(), middle)


def dynamic_levels() -> Tensor:
    """The 256 levels of bitsandbytes' signed dynamic map: 7 decades of evenly spaced fractions."""
    found = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        middles = (edges[:-1] + edges[1:]) / 2
        for value in (10 ** (decade - 6) * middles).tolist():
            found += [value, -value]
    return torch.tensor(sorted(found))


def nibbles_swapped(packed: Tensor) -> Tensor:
    """Bytes with their first code in the high four bits, from bytes with it in the low ones; and back."""
    return (packed << 4) | (packed >> 4)


@cache
def dequantize_4bit() -> Callable[..., Tensor] | None:
    """bitsandbytes' kernel: (codes, largest weights, block size, codebook, shape, dtype) -> weights."""
    try:
        import bitsandbytes  # noqa: F401 - registers it
    except ImportError:
        return None
    return torch.ops.bitsandbytes.dequantize_4bit.default  # type: ignore[no-any-return]


class CodebookLinear(PackedLinear):
    """Packed codes, and the largest absolute weight of each block; laid out as bitsandbytes does, whose
    kernel unpacks them where it is installed: the same numbers, sooner.

    Shapes: codes packed_width(out * in, 4); absmax blocks float32, or blocks uint8 with `nested_scale`
    blocks / 256 float32 and `offset` 1
    """

    codes: Tensor
    absmax: Tensor
    nested_scale: Tensor | None
    offset: Tensor | None
    levels: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: Tensor | None,
        config: CodebookConfig,
        name: str,
        levels: Sequence[float],
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.codebook = name
        self.block_size = config.block_size
        count = -(-in_features * out_features // config.block_size)
        nested = config.double_quantization
        codes = torch.zeros(packed_width(in_features * out_features, 4), dtype=torch.uint8)
        self.register_buffer("codes", codes)
        kind = torch.uint8 if nested else torch.float32
        self.register_buffer("absmax", torch.zeros(count, dtype=kind))
        scales = torch.zeros(-(-count // NESTED_BLOCK)) if nested else None
        self.register_buffer("nested_scale", scales)
        self.register_buffer("offset", torch.zeros(1) if nested else None)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def stored_bits(self) -> int:
        return super().stored_bits() - 8 * self.levels.numel() * self.levels.element_size()

    def fill(self, weight: Tensor) -> CodebookLinear:
        """Store a weight (out x in)."""
        self.to(weight.device)
        blocks = blocks_of(weight, self.block_size)
        absmax = blocks.abs().amax(-1)
        order = torch.argsort(self.levels)
        scaled = blocks / absmax.clamp(min=1e-30)[:, None]
        codes = order[nearest(scaled, self.levels[order])]
        self.codes.copy_(nibbles_swapped(pack_codes(codes.flatten()[: weight.numel()], 4)))
        if self.nested_scale is None:
            self.absmax.copy_(absmax)
        else:
            assert self.offset is not None
            self.offset.copy_(absmax.mean())
            centred = blocks_of(absmax - self.offset, NESTED_BLOCK)
            self.nested_scale.copy_(centred.abs().amax(-1))
            relative = centred / self.nested_scale.clamp(min=1e-30)[:, None]
            self.absmax.copy_(nearest(relative, dynamic_levels().to(weight.device)).flatten()[: len(absmax)])
        return self

    def scales(self) -> Tensor:
        """The largest absolute weight of each block, unpacked."""
        if self.nested_scale is None:
            return self.absmax
        relative = dynamic_levels().to(self.absmax.device)[self.absmax.long()]
        scales = blocks_of(relative, NESTED_BLOCK) * self.nested_scale[:, None]
        assert self.offset is not None
        return scales.flatten()[: len(self.absmax)] + self.offset

    def dequantize(self) -> Tensor:
        """level[code] * largest weight of the block, float32."""
        scales, shape = self.scales(), (self.out_features, self.in_features)
        if self.in_features % self.block_size == 0 and self.block_size in KERNEL_BLOCKS:
            kernel = dequantize_4bit()
            if kernel is not None:
                return kernel(self.codes, scales, self.block_size, self.codebook, shape, torch.float32)
        values = unpack_levels(nibbles_swapped(self.codes), 4, self.num_weights(), self.levels)
        whole = len(values) // self.block_size
        values[: whole * self.block_size].view(whole, -1).mul_(scales[:whole, None])
        values[whole * self.block_size :].mul_(scales[-1])  # the last block may be cut short
        return values.view(shape)


class CodebookQuantizer(Quantizer):
    """Base of NF4 and FP4."""

    Config = CodebookConfig
    config: CodebookConfig
    levels: Sequence[float] = ()
    """The sixteen levels, by code."""

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        return self.swap(
            model, lambda name, layer: self.empty_layer(layer).fill(weight_matrix(layer).float())
        )

    def empty_layer(self, layer: nn.Module) -> CodebookLinear:
        return CodebookLinear(*self.fitting(layer), self.config, self.name, self.levels)

    def layouts(self) -> Sequence[str]:
        return ("bitsandbytes",)

    def lay_out(
        self, layers: Mapping[str, PackedLinear], layout: str, *, skipped: Sequence[str]
    ) -> PackedLayout:
        from ._bitsandbytes import four_bit, four_bit_config, four_bit_weight

        for layer in layers.values():
            assert isinstance(layer, CodebookLinear)
        return PackedLayout(
            config=four_bit_config(self.config, self.name, skipped),
            tensors={name: four_bit(name, layer) for name, layer in layers.items()},  # type: ignore[arg-type]
            weight_of=four_bit_weight,
        )

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        weights = in_features * out_features
        blocks = -(-weights // self.config.block_size)
        scales = 32 * blocks
        if self.config.double_quantization:
            scales = 8 * blocks + 32 * -(-blocks // NESTED_BLOCK) + 32
        return (8 * packed_width(weights, 4) + scales) / weights
