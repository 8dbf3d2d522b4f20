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
        nibbles = blocks[..., at:]
        codes = (torch.cat([nibbles & 15, nibbles >> 4], dim=-1) | high).float()
        if minimum is None:
            codes = codes - (8 if self.kind is Format.q4_0 else 16)
        values: Tensor = codes * scale if minimum is None else codes * scale + minimum
        return values.flatten(-2)


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
