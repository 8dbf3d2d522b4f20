"""A cache of each sequence's first tokens and its last ones, for attention that reads no others.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import IncompatibleError
from harness.ops.cache_layer import KeyValueCache

SPARE = 64
"""Tokens kept beyond the window, so that as many can be taken back; twice as many come together before any
is freed, so that few steps copy."""


class SinkCache(KeyValueCache):
    """Keys and values of one layer: `sinks` first tokens of every row and at least the last `window`.

    Paper: Xiao et al. 2023, arXiv:2309.17453, section 3.2
    State: keys, values BKSH; `seen` columns so far, padding included; `starts_B` where each row begins
    Raises: IncompatibleError when more is taken back than was kept
    """

    def __init__(self, sinks: int, window: int) -> None:
        self.sinks, self.window = sinks, window
        self.reset()

    def reset(self) -> None:
        self.keys = self.values = None
        self.starts_B: Tensor | None = None
        self.seen = 0
        self.held = 0
        """Columns of sinks at the left; the rest are the last ones, in order."""
        self.places_BS: Tensor | None = None
        """Position of every key that the last `update` returned; -1 for padding and doubles."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns what any of them may read.

        Shapes: BKTH -> BKSH
        """
        keys, values = key_states, value_states
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat((self.keys, keys), dim=2), torch.cat((self.values, values), dim=2)
        self.seen += key_states.shape[2]
        self.places_BS = self._places(len(keys), keys.shape[2], keys.device)
        self.keys, self.values = keys, values
        full = keys.shape[2] - self.held >= self.window + self.sinks + 2 * SPARE
        if full and int(self._starts(len(keys), keys.device).max()) + self.sinks <= self.seen:
            self._free()
        return keys, values

    def _starts(self, batch: int, device: torch.device) -> Tensor:
        if self.starts_B is None:
            self.starts_B = torch.zeros(batch, dtype=torch.long, device=device)
        return self.starts_B

    def _places(self, batch: int, length: int, device: torch.device) -> Tensor:
        """Positions of the kept columns; those of sinks that still stand among the last ones are doubles."""
        starts_B1 = self._starts(batch, device)[:, None]
        first = self.seen - (length - self.held)
        tail_BS = torch.arange(first, self.seen, device=device) - starts_B1
        sink_S = torch.arange(self.held, device=device)[None]
        sink_BS = torch.where(starts_B1 + sink_S < first, sink_S, -1)
        return torch.cat((sink_BS, tail_BS.clamp(min=-1)), dim=1)

    def _free(self) -> None:
        """Forget what stands between the sinks and the last tokens."""
        assert self.keys is not None
        assert self.values is not None
        batch, _, length, _ = self.keys.shape
        sinks = torch.arange(self.sinks, device=self.keys.device).expand(batch, -1)
        if not self.held:  # they stand where each row begins
            sinks = sinks + self._starts(batch, self.keys.device)[:, None]
        tail = torch.arange(length - (self.window - 1 + SPARE), length, device=self.keys.device)
        column_BS = torch.cat((sinks, tail.expand(batch, -1)), dim=1)
        rows = torch.arange(batch, device=self.keys.device)[:, None]
        self.keys = self.keys.transpose(1, 2)[rows, column_BS].transpose(1, 2)
        self.values = self.values.transpose(1, 2)[rows, column_BS].transpose(1, 2)
        self.held = self.sinks

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        count = abs(tokens_to_remove)
        if not count or self.keys is None or self.values is None:
            return
        length = self.keys.shape[2]
        if self.held and length - self.held - count < self.window - 1:
            raise IncompatibleError(
                f"a window of {self.window} tokens cannot take back {count}; draft fewer tokens a step or "
                "use a context method that keeps all keys"
            )
        self.seen -= count
        self.keys, self.values = self.keys[:, :, : length - count], self.values[:, :, : length - count]
