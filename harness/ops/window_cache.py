"""A cache of the last keys and values only, for attention that reads no others.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import IncompatibleError
from harness.ops.cache_layer import CacheLayer

SPARE = 64
"""Tokens kept beyond the window, so that speculative decoding can take back as many; twice as many are let
come together before any is freed, so that few steps copy.
"""


class WindowCache(CacheLayer):
    """Keys and values of the last `window` - 1 tokens at least, and of 2 SPARE more at most.

    State: keys, values BKSH; `held`, how many columns the window takes where padding stands in it
    Raises: IncompatibleError when more is taken back than was kept
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.held = window - 1

    def hold(self, columns: int) -> None:
        """Keep so many columns at least."""
        self.held = max(self.window - 1, columns)

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
        self.keys, self.values = keys, values
        if keys.shape[2] > self.held + 2 * SPARE:
            kept = slice(keys.shape[2] - self.held - SPARE, None)
            # Copied, so that the memory of what is forgotten comes back.
            self.keys, self.values = keys[:, :, kept].clone(), values[:, :, kept].clone()
        return keys, values

    def crop(self, tokens_to_remove: int) -> None:
        count = abs(tokens_to_remove)
        if not count or self.keys is None or self.values is None:
            return
        held = self.keys.shape[2]
        if held < self.seen and held - count < self.held:
            raise IncompatibleError(
                f"a window of {self.window} keeps {held} tokens and cannot take back {count}; draft fewer "
                "tokens a step, or use attention=full"
            )
        self.seen -= count
        self.keys, self.values = self.keys[:, :, : held - count], self.values[:, :, : held - count]
