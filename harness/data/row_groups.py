"""Parquet files in pieces: what is read of one is never whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def batches(file: Any, *, rows: int) -> Iterator[Any]:
    """Record batches of at most so many rows of an open `ParquetFile`, in order.

    One row group after another: over all of them at once, the library keeps what it has read until it ends
    (109 MB of a file of 300).
    """
    for group in range(file.metadata.num_row_groups):
        yield from file.iter_batches(batch_size=rows, row_groups=[group])
