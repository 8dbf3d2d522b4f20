"""Several records of one configuration and seed: which is shown, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.numbers import counted
from harness.report.record import Record
from harness.store.records import differing_numbers

RESULTS = ("ok", "diverged", "incompatible", "refused")
"""Outcomes that follow from what was asked; others follow from where and when it ran."""
NAMED = 2
"""Places, or numbers, that a note names; it counts the others."""


def once_each(records: Sequence[Record]) -> list[Record]:
    """Records, oldest first, without older copies: of one cell, from the same stages, with equal numbers."""
    kept: dict[tuple[Any, ...], list[Record]] = {}
    for record in reversed(records):
        same = kept.setdefault((record.cell, record.status, *record.keys), [])
        if all(differing_numbers(record.data, other.data) for other in same):
            same.append(record)
    left = {record for group in kept.values() for record in group}
    return [record for record in records if record in left]


def one_a_place(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Of each configuration and seed the newest record that is a result, else the newest; and notes.

    Where the same stages gave other numbers, a note names them.
    """
    shown: dict[tuple[Any, ...], Record] = {}
    older: list[Record] = []
    for record in records:
        previous = shown.get(record.place)
        if previous is not None:
            failed_again = record.status not in RESULTS and previous.status in RESULTS
            previous, record = (record, previous) if failed_again else (previous, record)
            older.append(previous)
        shown[record.place] = record
    notes = []
    if older:
        places = list(dict.fromkeys(record.where for record in older))
        notes.append(f"Several records of {listed(places)}: the newest is shown.")
    for record in older:
        newer = shown[record.place]
        if record.keys == newer.keys and (apart := differing_numbers(newer.data, record.data)):
            texts = [f"{name} {now} now, {before} before" for name, (now, before) in apart.items()]
            notes.append(
                f"The same stages gave other numbers when they ran again ({record.where}): {listed(texts)}."
            )
    return [record for record in records if shown[record.place] is record], notes


def listed(texts: Sequence[str]) -> str:
    """`a; b and 3 more`."""
    more = len(texts) - NAMED
    return "; ".join(texts[:NAMED]) + (f" and {counted(more, 'other')}" if more > 0 else "")
