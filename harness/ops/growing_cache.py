"""A key/value cache with room to grow, so that a step copies its own token and not all before it.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept
"""

from __future__ import annotations

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
            room = max(end + ROOM, end + end // 4)
            self._buffers = _roomy(self.keys, room), _roomy(self.values, room)
        keys, values = self._buffers
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        self._views = keys[:, :, :end], values[:, :, :end]
        self.keys, self.values = self._views
        return self.keys, self.values

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

    def join(self, other: GrowingCache) -> None:
        """Take over the sequences of another cache; the shorter ones are padded on the left with zeros."""
        assert self.keys is not None
        assert self.values is not None
        assert other.keys is not None
        assert other.values is not None
        self.keys = _stacked(self.keys, other.keys)
        self.values = _stacked(self.values, other.values)
        if self.lengths_B is not None and other.lengths_B is not None:
            self.lengths_B = torch.cat((self.lengths_B, other.lengths_B))

    def drop_left(self, count: int) -> None:
        """Forget the first `count` columns, which no row needs."""
        if count and self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[:, :, count:], self.values[:, :, count:]


def _roomy(kept_BKSH: Tensor, room: int) -> Tensor:
    batch, heads, length, dim = kept_BKSH.shape
    buffer = kept_BKSH.new_empty(batch, heads, room, dim)
    buffer[:, :, :length] = kept_BKSH
    return buffer


def _stacked(first_BKSH: Tensor, second_BKSH: Tensor) -> Tensor:
    length = max(first_BKSH.shape[2], second_BKSH.shape[2])
    padded = [
        torch.nn.functional.pad(part, (0, 0, length - part.shape[2], 0)) for part in (first_BKSH, second_BKSH)
    ]
    return torch.cat(padded)
