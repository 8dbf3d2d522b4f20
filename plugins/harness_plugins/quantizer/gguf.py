"""GGUF block formats of llama.cpp: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    Calibration,
    Method,
    PackedLinear,
    Quantizer,
    hookimpl,
    weight_matrix,
)

from ._gguf_file import write_gguf
from ._products import FEW_ROWS, Tiles, make_tiles

BLOCK = 32
"""Weights in one block of every format here."""


class Format(StrEnum):
    """Block layouts; the number is the bits of a code, _0 has a scale, _1 a scale and a minimum."""

    q4_0 = "q4_0"
    q4_1 = "q4_1"
    q5_0 = "q5_0"
    q5_1 = "q5_1"
    q8_0 = "q8_0"


BYTES = {Format.q4_0: 18, Format.q4_1: 20, Format.q5_0: 22, Format.q5_1: 24, Format.q8_0: 34}
"""Bytes of one block."""


class GGUFLinear(PackedLinear):
    """A weight in the bytes of a GGUF file.

    Shapes: blocks out x (in / 32) * bytes, uint8
    """

    blocks: Tensor

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None, kind: Format) -> None:
        super().__init__(in_features, out_features, bias)
        self.kind = kind
        width = in_features // BLOCK * BYTES[kind]
        self.register_buffer("blocks", torch.zeros(out_features, width, dtype=torch.uint8))
        self._tiles: tuple[Tensor, Tiles | None] | None = None

    def dequantize(self) -> Tensor:
        """The weight these bytes stand for, as llama.cpp computes it."""
        blocks = self.blocks.unflatten(-1, (-1, BYTES[self.kind]))
        scale, at = blocks[..., :2].contiguous().view(torch.float16).float(), 2
        if self.kind is Format.q8_0:
            whole: Tensor = blocks[..., at:].view(torch.int8).float() * scale
            return whole.flatten(-2)
        minimum = None
        if self.kind in (Format.q4_1, Format.q5_1):
            minimum, at = blocks[..., 2:4].contiguous().view(torch.float16).float(), 4
        high: Tensor | int = 0
        if self.kind in (Format.q5_0, Format.q5_1):
            lanes = torch.arange(8, dtype=torch.uint8, device=blocks.device)
            high = ((blocks[..., at : at + 4, None] >> lanes) & 1).flatten(-2) << 4
            at += 4
        values = (nibbles_of(blocks[..., at:]) | high).float()
        if minimum is None:
            return values.sub_(8 if self.kind is Format.q4_0 else 16).mul_(scale).flatten(-2)
        return values.mul_(scale).add_(minimum).flatten(-2)

    def product(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if x.device.type == "cpu" and x.dtype is torch.bfloat16 and len(rows) <= FEW_ROWS:
            tiles = self.tiles()
            if tiles is not None:
                return tiles.product(rows).view(*x.shape[:-1], self.out_features)
        return super().product(x)

    def tiles(self) -> Tiles | None:
        """The codes laid out for the kernel of few rows, made when first asked for; None without one."""
        if self.kind not in (Format.q4_0, Format.q4_1):
            return None
        if self._tiles is None or self._tiles[0] is not self.blocks:
            blocks = self.blocks.unflatten(-1, (-1, BYTES[self.kind]))
            numbers = blocks[..., : BYTES[self.kind] - BLOCK // 2].contiguous().view(torch.float16).float()
            scale, middle = numbers[..., 0], torch.zeros(())
            if self.kind is Format.q4_1:
                middle = 8 * scale + numbers[..., 1]
            codes = nibbles_of(blocks[..., -BLOCK // 2 :]).flatten(-2)
            tiles = make_tiles(codes, scale, middle.expand_as(scale), bits=4)
            self._tiles = (self.blocks, tiles)
        return self._tiles[1]

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._tiles = None


def nibbles_of(packed: Tensor) -> Tensor:
    """The codes of a block: the low halves of its bytes, then the high ones (... x 16 -> ... x 32, uint8)."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)


class GGUF(Quantizer):
    """Weight-only blocks of 32 in llama.cpp's own bytes, made by the `gguf` package.

    Paper: llama.cpp, https://github.com/ggml-org/llama.cpp (ggml-quants)
    Raises: MissingExtraError without the package
    """

    name = "gguf"
    extra = library = "gguf"

    @dataclass(frozen=True, kw_only=True)
    class Config(Quantizer.Config):
        format: Format = Format.q4_0
        """Block layout: q4_0, q4_1, q5_0, q5_1 or q8_0 (4.5, 5, 5.5, 6 and 8.5 bits a weight)."""

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        self.require_library()
        return self.swap(model, lambda name, layer: self.pack(layer))

    def pack(self, layer: nn.Module) -> GGUFLinear:
        """A layer in the package's bytes."""
        from gguf import GGMLQuantizationType
        from gguf.quants import quantize

        packed = self.empty_layer(layer)
        weight = weight_matrix(layer).float().cpu().contiguous().numpy()
        kind = GGMLQuantizationType[self.config.format.value.upper()]
        packed.blocks.copy_(torch.from_numpy(quantize(weight, kind)))
        return packed.to(weight_matrix(layer).device)

    def empty_layer(self, layer: nn.Module) -> GGUFLinear:
        return GGUFLinear(*self.fitting(layer), self.config.format)

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        if in_features % BLOCK:
            return (
                f"GGUF blocks hold {BLOCK} weights and it has {in_features} inputs; choose a model whose "
                f"widths are multiples of {BLOCK}, or quantizer=rtn"
            )
        return None

    def write_file(self, model: nn.Module, tokenizer: Any, directory: Path) -> Path:
        file = directory / f"model-{self.config.format.value}.gguf"
        write_gguf(model, tokenizer, file, kind=self.config.format.value)
        return file

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return 8 * BYTES[self.config.format] / BLOCK


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GGUF]
