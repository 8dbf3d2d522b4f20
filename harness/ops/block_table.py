"""Which block holds which token of which sequence; integers only, shared by the layers of a model.

Shapes: B batch, T new tokens, S tokens kept, P tokens a block; a *slot* counts places in a pool of blocks
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one call of `advance` asks every layer to do, in this order.

    Shapes: write and source have one entry for each new token that is not padding
    """

    copies: list[tuple[int, int]]
    """Blocks to copy before writing: (from, to)."""
    write: Tensor
    """Slots of the new tokens."""
    source: Tensor | None
    """Their places among the B * T given; None where all of them are real."""
    read: Tensor | None
    """Slots of all tokens kept, B * S of them; padding points at slot 0. None in a first call."""


class BlockTable:
    """A table of blocks for each sequence; sequences that share a past share its blocks until one writes.

    Paper: Kwon et al. 2023, arXiv:2309.06180, sections 4.2 (block tables) and 4.4 (copy-on-write)
    State: `tables` lists each sequence's blocks; `owners` counts the sequences that hold a block
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.owners: list[int] = []
        self.free: list[int] = []
        self.steps = 0
        """Calls of `advance` so far, by which layers know the last one."""
        self.clear()

    def clear(self) -> None:
        """Forget all sequences; their blocks become free."""
        for table in getattr(self, "tables", ()):
            self._release(table)
        self.tables: list[list[int]] = []
        self.lengths: list[int] = []
        self.starts: list[int] = []
        """Left padding of each sequence, in tokens; it is not stored."""
        self.seen = 0
        """Tokens so far, left padding included."""
        self.slots = torch.zeros(0, 0, dtype=torch.long)
        """Slot of every token and, beyond `seen`, room for more."""

    def advance(self, batch: int, count: int, device: torch.device) -> Step:
        """Make room for `count` more tokens of every sequence."""
        first = not self.tables
        if first:
            self.tables, self.lengths = [[] for _ in range(batch)], [0] * batch
            self.starts = self.starts or [0] * batch
            self.slots = self.slots.to(device)
        self.last = self._step(count, first)
        self.steps += 1
        return self.last

    def _step(self, count: int, first: bool) -> Step:
        before, device = self.seen, self.slots.device
        self.seen += count
        self._widen()
        copies: list[tuple[int, int]] = []
        rows = []
        for row, start in enumerate(self.starts):
            skipped = min(count, max(0, start - before))
            copies += self._own_last(row, before) if skipped < count else []
            rows.append([-1] * skipped + self._extend(row, count - skipped))
        new_BT = torch.tensor(rows, device=device)
        source = None
        if min(map(min, rows)) < 0:
            source = (new_BT >= 0).flatten().nonzero()[:, 0]
        self.slots[:, before : self.seen] = new_BT.clamp_min(0)
        write = new_BT.flatten() if source is None else new_BT.flatten()[source]
        read = None if first else self.slots[:, : self.seen].flatten()
        return Step(copies=copies, write=write, source=source, read=read)

    def _widen(self) -> None:
        """Room for `seen` columns; doubled, so that it is rarely asked for."""
        batch, held = len(self.tables), self.slots.shape[1]
        if self.seen > held or len(self.slots) != batch:
            wider = self.slots.new_zeros(batch, max(self.seen, 2 * held, 64))
            wider[: len(self.slots), :held] = self.slots
            self.slots = wider

    def _own_last(self, row: int, seen: int) -> list[tuple[int, int]]:
        """Replace a last block that has room and is read by others too; what to copy."""
        if not self.lengths[row] % self.block_size:
            return []
        index = len(self.tables[row]) - 1
        shared = self.tables[row][index]
        if self.owners[shared] == 1:
            return []
        copy = self._allocate()
        self.owners[shared] -= 1
        self.tables[row][index] = copy
        begin = self.starts[row] + index * self.block_size
        self.slots[row, begin:seen] += (copy - shared) * self.block_size
        return [(shared, copy)]

    def _extend(self, row: int, count: int) -> list[int]:
        """Slots of a sequence's next tokens."""
        table, size, begin = self.tables[row], self.block_size, self.lengths[row]
        self.lengths[row] = end = begin + count
        while len(table) * size < end:
            table.append(self._allocate())
        return [table[at // size] * size + at % size for at in range(begin, end)]

    def _allocate(self) -> int:
        if not self.free:
            self.free.append(len(self.owners))
            self.owners.append(0)
        block = self.free.pop()
        self.owners[block] = 1
        return block

    def _release(self, blocks: list[int]) -> None:
        for block in blocks:
            self.owners[block] -= 1
            if self.owners[block] == 0:
                self.free.append(block)

    def select(self, rows: list[int]) -> None:
        """Keep these sequences, repeated ones sharing their blocks."""
        for row in rows:
            for block in self.tables[row]:
                self.owners[block] += 1
        for table in self.tables:
            self._release(table)
        self.tables = [list(self.tables[row]) for row in rows]
        self.lengths = [self.lengths[row] for row in rows]
        self.starts = [self.starts[row] for row in rows]
        self.slots = self.slots[rows]

    def join(self, other: BlockTable) -> None:
        """Take over another table's sequences, whose blocks come after this one's; ends stay aligned."""
        offset, seen = len(self.owners), max(self.seen, other.seen)
        device = self.slots.device
        slots = torch.zeros(len(self.tables) + len(other.tables), seen, dtype=torch.long, device=device)
        slots[: len(self.tables), seen - self.seen :] = self.slots[:, : self.seen]
        moved = other.slots[:, : other.seen] + offset * self.block_size
        slots[len(self.tables) :, seen - other.seen :] = moved
        self.tables += [[block + offset for block in table] for table in other.tables]
        self.owners += other.owners
        self.free += [block + offset for block in other.free]
        self.starts = [start + seen - self.seen for start in self.starts] + [
            start + seen - other.seen for start in other.starts
        ]
        self.lengths += other.lengths
        self.slots, self.seen = slots, seen

    def crop(self, count: int) -> None:
        """Forget the last `count` tokens of every sequence."""
        self.seen -= count
        for row, table in enumerate(self.tables):
            self.lengths[row] = max(0, self.lengths[row] - count)
            keep = -(-self.lengths[row] // self.block_size)
            self._release(table[keep:])
            del table[keep:]

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
