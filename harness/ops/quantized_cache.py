"""A key/value cache in few bits: keys by channel, values by token, the newest tokens as they are.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept, G tokens a group. The class has
the methods of Hugging Face's cache layers and needs no import of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import ConfigError
from harness.ops.cache_layer import KeyValueCache
from harness.ops.packing import pack_codes, unpack_codes

UNPACKED = 16
"""Bits of a cache that keeps what the model gives, in whatever format it is."""
GROUP = 32
"""Tokens that share a key channel's grid; the most features of a value that share one."""


@dataclass(frozen=True)
class Packed:
    """Numbers on min-max grids, each over the last dimension; minima and maxima in float16.

    The step follows from both ends: in float16 itself, one below 6e-5 would lose digits.
    Shapes: codes (..., packed_width(size, bits)) uint8; low and high (..., 1)
    """

    codes: Tensor
    low: Tensor
    high: Tensor
    bits: int
    size: int

    @classmethod
    def pack(cls, x: Tensor, bits: int) -> Packed:
        """Round (..., size)."""
        low, high = (end.half() for end in x.float().aminmax(dim=-1, keepdim=True))
        step = step_of(low, high, bits).clamp(min=2.0**-32)
        codes = ((x.float() - low) / step).round().clamp(0, 2**bits - 1)
        return cls(pack_codes(codes, bits), low, high, bits, x.shape[-1])

    def values(self, dtype: torch.dtype) -> Tensor:
        """The numbers (..., size)."""
        codes = unpack_codes(self.codes, self.bits, self.size).float()
        return (codes * step_of(self.low, self.high, self.bits) + self.low).to(dtype)

    def rows(self, index: Tensor) -> Packed:
        """These sequences of the batch."""
        codes, low, high = (t.index_select(0, index) for t in (self.codes, self.low, self.high))
        return Packed(codes, low, high, self.bits, self.size)

    def num_bytes(self) -> int:
        """Bytes stored."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.low, self.high))


def step_of(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """The distance of neighbouring levels between two ends, in float32."""
    step: Tensor = (high.float() - low.float()) / (2**bits - 1)
    return step


class QuantizedCache(KeyValueCache):
    """Keys and values of one layer, in groups of G tokens that are packed once `residual` newer ones follow.

    A pass reads its own new tokens as they are.
    Paper: Liu et al. 2024, KIVI, arXiv:2402.02750, section 3 (keys by channel, values by token, a residual)
    State: `packed` holds groups, oldest first; `keys` and `values` the tokens after them
    """

    def __init__(self, *, bits: int, residual: int = GROUP) -> None:
        if not 2 <= bits <= 8:
            raise ConfigError(f"a cache of {bits} bits: it must be between 2 and 8")
        self.bits, self.residual = bits, residual
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.packed: list[tuple[Packed, Packed]] = []
        self.keys = self.values = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns all of them.

        Shapes: BKTH -> BKSH
        """
        self.keys = key_states if self.keys is None else torch.cat([self.keys, key_states], -2)
        self.values = value_states if self.values is None else torch.cat([self.values, value_states], -2)
        old = [self._unpack(group) for group in self.packed]
        keys = torch.cat([*(k for k, _ in old), self.keys], -2)
        values = torch.cat([*(v for _, v in old), self.values], -2)
        while self.keys.shape[-2] >= self.residual + GROUP:
            self.packed.append(self._pack(self.keys[..., :GROUP, :], self.values[..., :GROUP, :]))
            self.keys = self.keys[..., GROUP:, :].contiguous()
            self.values = self.values[..., GROUP:, :].contiguous()
        return keys, values

    def _pack(self, k_BKGH: Tensor, v_BKGH: Tensor) -> tuple[Packed, Packed]:
        width = v_BKGH.shape[-1]
        size = GROUP if width % GROUP == 0 else width
        return (
            Packed.pack(k_BKGH.transpose(-1, -2), self.bits),
            Packed.pack(v_BKGH.unflatten(-1, (-1, size)), self.bits),
        )

    def _unpack(self, group: tuple[Packed, Packed]) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        keys, values = (part.values(self.keys.dtype) for part in group)
        return keys.transpose(-1, -2), values.flatten(-2)

    def num_bytes(self) -> int:
        """Bytes stored, packed and not."""
        tails = [t.numel() * t.element_size() for t in (self.keys, self.values) if t is not None]
        return sum(tails) + sum(part.num_bytes() for group in self.packed for part in group)

    def get_seq_length(self) -> int:
        tail = 0 if self.keys is None else self.keys.shape[-2]
        return GROUP * len(self.packed) + tail

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences."""
        super().batch_select_indices(indices)
        if self.keys is not None:
            index = indices.to(self.keys.device)
            self.packed = [(k.rows(index), v.rows(index)) for k, v in self.packed]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.keys is not None:
            self.batch_select_indices(torch.arange(len(self.keys)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        if self.keys is None or self.values is None or not tokens_to_remove:
            return
        keep = self.get_seq_length() - abs(tokens_to_remove)
        while self.packed and GROUP * len(self.packed) > keep:  # a group that is cut is unpacked
            keys, values = self._unpack(self.packed.pop())
            self.keys = torch.cat([keys, self.keys], -2)
            self.values = torch.cat([values, self.values], -2)
        tail = keep - GROUP * len(self.packed)
        self.keys, self.values = self.keys[..., :tail, :], self.values[..., :tail, :]
