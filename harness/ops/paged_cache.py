"""A paged key/value cache: blocks, a table for each sequence, copy-on-write.

Shapes: B batch, K key/value heads, H head dim, P tokens a block, S tokens kept. The class has the methods of
Hugging Face's cache layers and needs no import of it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PagedCache:
    """Keys and values of one layer in blocks of P tokens; sequences that share a past share its blocks.

    Paper: Kwon et al. 2023, arXiv:2309.06180, sections 4.2 (block tables) and 4.4 (copy-on-write)
    State: `tables` lists each sequence's blocks; `owners` counts the sequences that hold a block
    """

    is_compileable = False
    is_sliding = False

    def __init__(self, block_size: int = 16) -> None:
        self.block_size = block_size
        self.tables: list[list[int]] = []
        self.lengths: list[int] = []
        self.starts: list[int] = []
        """Left padding of each sequence, in slots; it is not stored."""
        self.owners: list[int] = []
        self.free: list[int] = []
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.seen = 0
        """Slots so far, left padding included."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns all of them, padded on the left to one length.

        Shapes: BKTH -> BKSH
        """
        batch, count = key_states.shape[0], key_states.shape[2]
        if not self.tables:
            self.tables = [[] for _ in range(batch)]
            self.lengths = [0] * batch
            self.starts = self.starts or [0] * batch
        before = self.seen
        self.seen += count
        if count == 1 and before >= max(self.starts):
            self._append_one(key_states[:, :, 0], value_states[:, :, 0])
        else:
            for row in range(batch):
                skipped = min(count, max(0, self.starts[row] - before))
                self._append(row, key_states[row, :, skipped:], value_states[row, :, skipped:])
        return self._gather(key_states, value_states)

    def _append_one(self, k_BKH: Tensor, v_BKH: Tensor) -> None:
        """One token for every sequence, written at once."""
        for row, length in enumerate(self.lengths):
            if length % self.block_size == 0:
                self.tables[row].append(self._allocate(k_BKH[row, :, None], v_BKH[row, :, None]))
            else:
                self._own_last(row)
        assert self.keys is not None
        assert self.values is not None
        block = torch.tensor([table[-1] for table in self.tables], device=k_BKH.device)
        offset = torch.tensor([length % self.block_size for length in self.lengths], device=k_BKH.device)
        self.keys[block, :, offset] = k_BKH
        self.values[block, :, offset] = v_BKH
        self.lengths = [length + 1 for length in self.lengths]

    def _append(self, row: int, k_KTH: Tensor, v_KTH: Tensor) -> None:
        written, total = 0, k_KTH.shape[1]
        while written < total:
            offset = self.lengths[row] % self.block_size
            if offset == 0:
                self.tables[row].append(self._allocate(k_KTH, v_KTH))
            else:
                self._own_last(row)
            assert self.keys is not None
            assert self.values is not None
            block = self.tables[row][-1]
            size = min(self.block_size - offset, total - written)
            self.keys[block, :, offset : offset + size] = k_KTH[:, written : written + size]
            self.values[block, :, offset : offset + size] = v_KTH[:, written : written + size]
            self.lengths[row] += size
            written += size

    def _allocate(self, k_KTH: Tensor, v_KTH: Tensor) -> int:
        if not self.free:
            grow = max(4, len(self.owners))
            self.keys = _grown(self.keys, grow, self.block_size, k_KTH)
            self.values = _grown(self.values, grow, self.block_size, v_KTH)
            self.free.extend(range(len(self.owners) + grow - 1, len(self.owners) - 1, -1))
            self.owners.extend([0] * grow)
        block = self.free.pop()
        self.owners[block] = 1
        return block

    def _own_last(self, row: int) -> None:
        """Copy the last block before writing into it if others read it too."""
        assert self.keys is not None
        assert self.values is not None
        shared = self.tables[row][-1]
        if self.owners[shared] == 1:
            return
        copy = self._allocate(self.keys[shared], self.values[shared])
        self.keys[copy], self.values[copy] = self.keys[shared], self.values[shared]
        self.owners[shared] -= 1
        self.tables[row][-1] = copy

    def _gather(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        total = self.seen
        assert self.keys is not None
        assert self.values is not None
        if len(set(self.lengths)) == 1 and self.lengths[0] == total:
            table = torch.tensor(self.tables, device=key_states.device)
            return _read(self.keys, table, total), _read(self.values, table, total)
        k = key_states.new_zeros(*key_states.shape[:2], total, key_states.shape[3])
        v = value_states.new_zeros(*value_states.shape[:2], total, value_states.shape[3])
        for row, (blocks, length) in enumerate(zip(self.tables, self.lengths, strict=True)):
            table = torch.tensor([blocks], device=key_states.device)
            k[row, :, total - length :] = _read(self.keys, table, length)[0]
            v[row, :, total - length :] = _read(self.values, table, length)[0]
        return k, v

    def num_blocks(self) -> int:
        """Blocks in use, each counted once however many sequences share it."""
        return sum(count > 0 for count in self.owners)

    def waste(self) -> int:
        """Token places allocated and not filled, over all sequences."""
        filled: dict[int, int] = {}
        for table, length in zip(self.tables, self.lengths, strict=True):
            for index, block in enumerate(table):
                here = min(self.block_size, length - index * self.block_size)
                filled[block] = max(filled.get(block, 0), here)
        return sum(self.block_size - count for count in filled.values())

    def get_seq_length(self) -> int:
        return self.seen

    @property
    def is_initialized(self) -> bool:
        return bool(self.tables)

    def get_max_length(self) -> int:
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences, repeated ones sharing their blocks."""
        rows = indices.tolist()
        for row in rows:
            for block in self.tables[row]:
                self.owners[block] += 1
        for table in self.tables:
            self._release(table)
        self.tables = [list(self.tables[row]) for row in rows]
        self.lengths = [self.lengths[row] for row in rows]
        self.starts = [self.starts[row] for row in rows]

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(len(self.tables)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        tokens_to_remove = abs(tokens_to_remove)
        self.seen -= tokens_to_remove
        for row, table in enumerate(self.tables):
            self.lengths[row] -= tokens_to_remove
            keep = -(-self.lengths[row] // self.block_size)
            self._release(table[keep:])
            del table[keep:]

    def reset(self) -> None:
        for table in self.tables:
            self._release(table)
        self.tables, self.lengths, self.starts, self.seen = [], [], [], 0

    def _release(self, blocks: list[int]) -> None:
        for block in blocks:
            self.owners[block] -= 1
            if self.owners[block] == 0:
                self.free.append(block)


def _grown(pool: Tensor | None, count: int, block_size: int, like_KTH: Tensor) -> Tensor:
    fresh = like_KTH.new_empty(count, like_KTH.shape[0], block_size, like_KTH.shape[2])
    return fresh if pool is None else torch.cat((pool, fresh))


def _read(pool: Tensor, table: Tensor, length: int) -> Tensor:
    """Shapes: pool (blocks K P H), table B by n -> B K length H"""
    return pool[table].transpose(1, 2).flatten(2, 3)[:, :, :length]
