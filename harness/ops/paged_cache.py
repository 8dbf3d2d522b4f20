"""A paged key/value cache: pools of blocks, found through one table for all layers.

Shapes: B batch, K key/value heads, H head dim, T new tokens, S tokens kept, P tokens a block. The class has
the methods of Hugging Face's cache layers and needs no import of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.ops.block_table import BlockTable, Step

SPARE = 16
"""A pool that is full grows by one part in this many at least, so that few steps copy it."""


class PagedCache:
    """Keys and values of one layer in blocks of P tokens; sequences that share a past share its blocks.

    Paper: Kwon et al. 2023, arXiv:2309.06180, section 4
    State: `keys`, `values` are pools of K (blocks * P) H; the table is the first layer's, others follow it
    """

    is_compileable = False
    is_sliding = False
    is_croppable = True

    def __init__(self, block_size: int = 16, *, table: BlockTable | None = None) -> None:
        self.leads = table is None
        self.table = table or BlockTable(block_size)
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.steps = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns all of them, padded on the left to one length.

        Shapes: BKTH -> BKSH
        """
        batch, _, count, _ = key_states.shape
        if self.steps == self.table.steps:  # the first layer to come here
            self.table.advance(batch, count, key_states.device)
        self.steps += 1
        assert self.steps == self.table.steps, "every layer takes part in every pass"
        step, size = self.table.last, self.table.block_size
        num_blocks = len(self.table.owners)
        self.keys = _stored(self.keys, key_states, step, num_blocks, size)
        self.values = _stored(self.values, value_states, step, num_blocks, size)
        if step.read is None:
            return key_states, value_states
        return _read(self.keys, step.read, batch), _read(self.values, step.read, batch)

    def get_seq_length(self) -> int:
        return self.table.seen

    @property
    def is_initialized(self) -> bool:
        return bool(self.table.tables)

    def get_max_length(self) -> int:
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences, repeated ones sharing their blocks."""
        if self.leads:
            self.table.select(indices.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(len(self.table.tables)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        if self.leads:
            self.table.crop(abs(tokens_to_remove))

    def join(self, *others: PagedCache) -> None:
        """Take over the sequences of other caches; the first layer's table goes first in all of them."""
        for place, other in enumerate(others):
            later = sum(len(more.table.owners) for more in others[place:])
            self._join(other, joined=later)

    def _join(self, other: PagedCache, *, joined: int) -> None:
        """Take over another cache's sequences; `joined` blocks of it and later ones are in the table."""
        assert self.keys is not None
        assert self.values is not None
        assert other.keys is not None
        assert other.values is not None
        # The table of the first layer has been joined before; the others' pools still have the old size.
        held = len(self.table.owners) - (0 if self.leads else joined)
        end, added = held * self.table.block_size, len(other.table.owners) * other.table.block_size
        self.keys = torch.cat((_cut(self.keys, end), _cut(other.keys, added)), dim=1)
        self.values = torch.cat((_cut(self.values, end), _cut(other.values, added)), dim=1)
        if self.leads:
            self.table.join(other.table)

    def reset(self) -> None:
        if self.leads:
            self.table.clear()


def paged_layers(count: int) -> list[PagedCache]:
    """Caches of the layers of one model, all of them reading the first one's table."""
    first = PagedCache()
    return [first, *(PagedCache(table=first.table) for _ in range(count - 1))]


def _stored(pool: Tensor | None, x_BKTH: Tensor, step: Step, num_blocks: int, block_size: int) -> Tensor:
    """The pool with room for all blocks, shared ones copied, and the new tokens in it."""
    new_KTH = x_BKTH.transpose(0, 1).flatten(1, 2)
    held = 0 if pool is None else pool.shape[1] // block_size
    if held < num_blocks:
        more = max(num_blocks - held, held // SPARE) * block_size
        # Zeros, since padding reads slot 0, which a sequence may not have filled yet, with a weight of zero.
        fresh = new_KTH.new_zeros(len(new_KTH), more, new_KTH.shape[-1])
        pool = fresh if pool is None else torch.cat((pool, fresh), dim=1)
    assert pool is not None
    blocks = pool.unflatten(1, (-1, block_size))
    for source, target in step.copies:
        blocks[:, target] = blocks[:, source]
    return pool.index_copy_(1, step.write, new_KTH if step.source is None else new_KTH[:, step.source])


def _cut(pool: Tensor, slots: int) -> Tensor:
    """Exactly so many slots of a pool, zeros where it has fewer."""
    missing = slots - pool.shape[1]
    return torch.nn.functional.pad(pool, (0, 0, 0, missing)) if missing > 0 else pool[:, :slots]


def _read(pool: Tensor, slots: Tensor, batch: int) -> Tensor:
    """A head's keys lie together, as the kernels read them: gathering costs what a concatenation does.

    Shapes: pool K (slots) H, slots B * S -> BKSH
    """
    return pool.index_select(1, slots).view(len(pool), batch, -1, pool.shape[-1]).transpose(0, 1)
