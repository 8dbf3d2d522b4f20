"""Two models that read the same growing sequences, where what was guessed wrongly is forgotten again.

Shapes: B rows, T new tokens, S tokens kept, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import GrowingCache, new_cache, next_logits


class Reader:
    """A model with its cache of rows of different lengths, padded on the left.

    State: the cache holds the first `lengths[row]` tokens of every row and nothing else between reads
    """

    def __init__(self, model: nn.Module, *, rows: int) -> None:
        self.model = model
        self.cache: Any = new_cache(model)
        self.device = next(model.parameters()).device
        self.mask_BS = torch.zeros(rows, 0, dtype=torch.long, device=self.device)

    @property
    def forgets(self) -> bool:
        """Whether tokens can be taken out of its cache again, row by row."""
        return all(isinstance(layer, GrowingCache) for layer in self.cache.layers)

    def read(self, rows: Sequence[Sequence[int]], *, keep: int = 1) -> Tensor:
        """Read further tokens of every row; logits after the last `keep` of them.

        Rows may differ in length only while nothing has been read, as padding stands on the left.
        Shapes: -> B[keep]V float64
        """
        width = max(map(len, rows))
        ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
        real_BT = torch.zeros_like(ids_BT)
        for row, tokens in enumerate(rows):
            if tokens:
                ids_BT[row, width - len(tokens) :] = torch.tensor(tokens)
                real_BT[row, width - len(tokens) :] = 1
        self.mask_BS = torch.cat((self.mask_BS, real_BT.to(self.device)), dim=1)
        logits = next_logits(self.model, ids_BT.to(self.device), self.mask_BS, self.cache, keep=keep)
        return (logits[:, None] if keep == 1 else logits).double()

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Keep these rows, and of each its first so many tokens."""
        index_B = torch.tensor(list(rows), device=self.device)
        self.cache.batch_select_indices(index_B)
        starts_B1 = self.mask_BS[index_B].long().argmax(dim=1, keepdim=True)
        lengths_B1 = torch.tensor(list(lengths), device=self.device)[:, None]
        width = int(lengths_B1.max())
        place_BS = torch.arange(width, device=self.device) - (width - lengths_B1)
        self.mask_BS = (place_BS >= 0).long()
        for layer in self.cache.layers:
            layer.columns(starts_B1 + place_BS.clamp(min=0))
