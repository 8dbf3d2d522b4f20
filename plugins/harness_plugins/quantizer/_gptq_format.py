"""The tensors of a GPTQ checkpoint, as auto_gptq and gptqmodel write them."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import PackedLinear

WORD = 32
"""Bits of one stored integer; 32 codes fill as many words as they have bits."""


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Codes of a little-endian bit stream along the first dimension.

    Shapes: (n / 32 * bits, m) int32 -> (n, m) int64
    """
    wide = (words.long() & 0xFFFFFFFF).unflatten(0, (-1, bits))
    codes = []
    for place in range(WORD):
        word, shift = divmod(place * bits, WORD)
        value = wide[:, word] >> shift
        if shift + bits > WORD:  # three bits straddle a word's end
            value = value | (wide[:, word + 1] << (WORD - shift))
        codes.append(value & (2**bits - 1))
    return torch.stack(codes, dim=1).flatten(0, 1)


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """The little-endian bit stream that `unpack_words` reads, along the first dimension.

    Shapes: (n, m) integers -> (ceil(n / 32) * bits, m) int32
    """
    wide = torch.nn.functional.pad(codes.long(), (0, 0, 0, -len(codes) % WORD)).unflatten(0, (-1, WORD))
    words = wide.new_zeros(
        len(wide), bits + 1, wide.shape[-1]
    )  # one more, for what is shifted out of the last
    for place in range(WORD):
        word, shift = divmod(place * bits, WORD)
        value = wide[:, place] << shift
        words[:, word] |= value & 0xFFFFFFFF
        words[:, word + 1] |= value >> WORD
    signed = torch.where(words >= 2 ** (WORD - 1), words - 2**WORD, words)
    return signed[:, :bits].flatten(0, 1).int().contiguous()


class GPTQFormatLinear(PackedLinear):
    """A layer of a GPTQ checkpoint; zeros are stored less one.

    Shapes: qweight in / 32 * bits x out, qzeros groups x out / 32 * bits (int32), scales groups x out
    float16, g_idx in int32: the group of each input
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, *, bits: int, group_size: int
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.bits = bits
        groups = -(-in_features // group_size)
        words = torch.zeros(in_features // WORD * bits, out_features, dtype=torch.int32)
        self.register_buffer("qweight", words)
        zeros = torch.zeros(groups, out_features // WORD * bits, dtype=torch.int32)
        self.register_buffer("qzeros", zeros)
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("g_idx", torch.zeros(in_features, dtype=torch.int32))

    def zeros(self) -> Tensor:
        """The code that stands for zero (groups x out, int64)."""
        stored = unpack_words(self.qzeros.T, self.bits).T
        return (stored + 1) & ((1 << self.bits) - 1)

    def dequantize(self) -> Tensor:
        """(code - zero) * scale of each input's group, float32."""
        codes, zeros = unpack_words(self.qweight, self.bits), self.zeros()
        group = self.g_idx.long()
        weight: Tensor = ((codes - zeros[group]).float() * self.scales.float()[group]).T
        return weight
