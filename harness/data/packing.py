"""How a domain's tokens become windows: cut where they are full, or packed so that documents stay whole."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import numpy as np

CHUNK = 1 << 22
"""Tokens that are searched for ends at once."""


class Packing(Enum):
    """How documents share windows."""

    concatenate = "concatenate"
    """One after another, cut where a window is full: no padding."""
    best_fit = "best_fit"
    """Only documents longer than a window are cut; the rest are packed whole."""


class Windows(Protocol):
    """The windows of one domain.

    Shapes: a window has at most T + 1 ids
    """

    num_tokens: int
    """Tokens that all windows read, each once: T of a full one."""

    def __len__(self) -> int: ...

    def ids(self, index: int) -> np.ndarray:
        """Ids of one window, without padding."""


class Concatenated:
    """T + 1 consecutive ids, of which the last is the next window's first."""

    def __init__(self, ids_N: np.ndarray, length: int) -> None:
        self.ids_N, self.length = ids_N, length
        self.num_tokens = len(ids_N) - 1

    def __len__(self) -> int:
        return -(-self.num_tokens // self.length)

    def ids(self, index: int) -> np.ndarray:
        start = index * self.length
        return self.ids_N[start : start + self.length + 1]


class BestFit:
    """Documents packed whole by best-fit decreasing; of longer ones the full windows stand alone.

    Paper: Ding et al. 2024, arXiv:2404.10830, algorithm 1
    Differs: pieces of a long document share the id at the cut, so that every token is predicted once
    State: 16 bytes a document
    """

    def __init__(self, ids_N: np.ndarray, length: int, *, eos_id: int) -> None:
        self.ids_N = ids_N
        ends_D = _ends(ids_N, eos_id)
        starts_D = np.concatenate([[0], ends_D[:-1]])
        starts, stops = [], []
        full_D = np.maximum(0, ends_D - starts_D - 2) // length
        """Windows that a document fills alone; what is left has 2 to T + 1 ids."""
        for document in np.flatnonzero(full_D):
            first = starts_D[document] + length * np.arange(full_D[document])
            starts.append(first)
            stops.append(first + length + 1)
        rest_D = starts_D + full_D * length
        self.starts = np.concatenate([*starts, rest_D]).astype(np.int64)
        self.stops = np.concatenate([*stops, ends_D]).astype(np.int64)
        alone = len(self.starts) - len(rest_D)
        sizes = (self.stops - self.starts)[alone:]
        packed = best_fit(sizes.tolist(), capacity=length + 1)
        self.pieces = [[index] for index in range(alone)]
        self.pieces += [[alone + index for index in window] for window in packed]
        self.num_tokens = sum(self._size(window) - 1 for window in self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def ids(self, index: int) -> np.ndarray:
        return np.concatenate([self.ids_N[self.starts[i] : self.stops[i]] for i in self.pieces[index]])

    def _size(self, pieces: Sequence[int]) -> int:
        return sum(int(self.stops[i] - self.starts[i]) for i in pieces)


def best_fit(sizes: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Numbers of the items of each bin: the largest first, each into the fullest bin that has room for it.

    Items larger than a bin stand alone. Costs O(n (log n + capacity)) at most, far less in practice.
    """
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        place = bisect.bisect_left(rooms, sizes[item])
        if place == len(rooms):
            chosen, room = len(bins), capacity - sizes[item]
            bins.append([])
        else:
            before = rooms[place]
            chosen, room = by_room[before].pop(), before - sizes[item]
            if not by_room[before]:
                del rooms[place]
        bins[chosen].append(item)
        if room > 0:
            waiting = by_room.setdefault(room, [])
            if not waiting:
                bisect.insort(rooms, room)
            waiting.append(chosen)
    return bins


def _ends(ids_N: np.ndarray, eos_id: int) -> np.ndarray:
    """One past each document's last id; a part of the file at a time."""
    found = [
        start + 1 + np.flatnonzero(ids_N[start : start + CHUNK] == eos_id)
        for start in range(0, len(ids_N), CHUNK)
    ]
    ends = np.concatenate(found)
    return ends if len(ends) and ends[-1] == len(ids_N) else np.append(ends, len(ids_N))
