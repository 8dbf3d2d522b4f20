"""A key/value cache with room to grow, so that a step copies its own token and not all before it.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.ops.cache_layer import KeyValueCache

ROOM = 64
"""Tokens that there is room for beyond those asked for."""


class GrowingCache(KeyValueCache):
    """Keys and values of one layer, appended in place.

    State: `keys`, `values` BKSH are the filled part of buffers that are twice as long at most
    """

    def __init__(self) -> None:
        self.lengths_B: Tensor | None = None
        """What a context method remembers of each row: its length when it was first read."""
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._views: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns all of them.

        Shapes: BKTH -> BKSH
        """
        begin = self.get_seq_length()
        end = begin + key_states.shape[2]
        if self.keys is None:  # a prompt: no copy until something follows it
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        assert self.values is not None
        own = self._views is not None and self._views[0] is self.keys and self._views[1] is self.values
        if not own or self._buffers is None or self._buffers[0].shape[2] < end:
            room = _room_for(end)
            self._buffers = _roomy(self.keys, room), _roomy(self.values, room)
        keys, values = self._buffers
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        return self._show(end)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        """What the buffers hold."""
        assert self._buffers is not None
        keys, values = self._buffers
        self._views = keys[:, :, :length], values[:, :, :length]
        self.keys, self.values = self._views
        return self._views

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        if tokens_to_remove and self.keys is not None and self.values is not None:
            kept = self.get_seq_length() - abs(tokens_to_remove)
            self.keys, self.values = self.keys[:, :, :kept], self.values[:, :, :kept]

    def reset(self) -> None:
        self.keys = self.values = self.lengths_B = self._buffers = self._views = None

    def columns(self, index_BS: Tensor) -> None:
        """Keep these columns of every row, in this order."""
        if self.keys is not None and self.values is not None:
            rows = torch.arange(len(index_BS), device=index_BS.device)[:, None]
            self.keys = self.keys.transpose(1, 2)[rows, index_BS].transpose(1, 2)
            self.values = self.values.transpose(1, 2)[rows, index_BS].transpose(1, 2)

    def join(self, *others: GrowingCache) -> None:
        """Take over the sequences of other caches; the shorter ones are padded on the left with zeros."""
        caches = (self, *others)
        length = max(cache.get_seq_length() for cache in caches)
        room = _room_for(length)
        self._buffers = (
            _joined([cache.keys for cache in caches], length, room),
            _joined([cache.values for cache in caches], length, room),
        )
        self._show(length)
        lengths = [cache.lengths_B for cache in caches if cache.lengths_B is not None]
        self.lengths_B = torch.cat(lengths) if len(lengths) == len(caches) else None

    def drop_left(self, count: int) -> None:
        """Forget the first `count` columns, which no row needs."""
        if count and self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[:, :, count:], self.values[:, :, count:]


def _roomy(kept_BKSH: Tensor, room: int) -> Tensor:
    batch, heads, length, dim = kept_BKSH.shape
    buffer = kept_BKSH.new_empty(batch, heads, room, dim)
    buffer[:, :, :length] = kept_BKSH
    return buffer


def _room_for(length: int) -> int:
    return max(length + ROOM, length + length // 4)


def _joined(parts: Sequence[Tensor | None], length: int, room: int) -> Tensor:
    """All sequences in one buffer, ending at `length`.

    Shapes: bKSH of several b and S -> BKRH
    """
    kept = [part_BKSH for part_BKSH in parts if part_BKSH is not None]
    assert len(kept) == len(parts)
    heads, dim = kept[0].shape[1], kept[0].shape[3]
    buffer, row = kept[0].new_empty(sum(map(len, kept)), heads, room, dim), 0
    for part_BKSH in kept:
        rows, gap = slice(row, row + len(part_BKSH)), length - part_BKSH.shape[2]
        buffer[rows, :, :gap] = 0  # masked, but what is masked must be a number
        buffer[rows, :, gap:length] = part_BKSH
        row += len(part_BKSH)
    return buffer
