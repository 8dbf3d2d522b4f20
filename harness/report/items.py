"""The values of single items behind a metric, so that comparisons can be paired by document."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.report.record import Record
from harness.report.scored import Scored
from harness.report.statistics import Array

GROUP = re.compile(r"\.(?=[A-Za-z_]\w*=)")
"""Before each group in a metric's name; a group's value may hold a dot."""


class Items(NamedTuple):
    """Values of one metric at single items."""

    values_RD: Array
    """Records x documents; NaN where one was not scored."""
    row_of: dict[str, int]
    """Cell -> its row."""
    docs: list[str]
    """The hash of each column's document."""


def item_matrix(printed: Iterable[tuple[Record, float]], metric: str) -> Items | None:
    """Per-item values of records.

    None where nothing was kept, or where their mean is not the value that a record prints
    """
    sample_name, column, groups = parted(metric)
    found: list[tuple[str, Any, Array]] = []
    for record, value in printed:
        items = averaged(record, sample_name, groups)
        if items is None or not items.measures(column) or "doc_hash" not in items:
            continue
        values_N = items.numbers(column)
        if (weighted := ratio_items(items, column, values_N, value)) is not None:
            values_N = weighted
        mean = float(np.nanmean(values_N)) if len(values_N) else math.nan
        if not math.isclose(mean, value, rel_tol=1e-3):
            return None
        found.append((record.cell, items.docs, values_N))
    if not found:
        return None
    index: dict[str, int] = {}
    values_RD = np.full((len(found), 0), np.nan)
    previous: Any = None
    for row, (_, docs, values_N) in enumerate(found):
        if previous is None or not np.array_equal(docs, previous):
            for doc in docs:
                index.setdefault(doc, len(index))
            places = np.fromiter((index[doc] for doc in docs), dtype=np.int64, count=len(docs))
            wider = np.full((len(found), len(index) - values_RD.shape[1]), np.nan)
            values_RD, previous = np.concatenate([values_RD, wider], axis=1), docs
        counts = np.bincount(places, minlength=len(index))
        if counts.max(initial=0) <= 1:
            values_RD[row, places] = values_N
        else:  # one document twice in a task: its mean, so that it weighs once
            sums = np.bincount(places, weights=values_N, minlength=len(index))
            values_RD[row] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Items(values_RD, {cell: row for row, (cell, _, _) in enumerate(found)}, list(index))


def parted(metric: str) -> tuple[str, str, list[str]]:
    """`<evaluator>.<task>` of a metric, its column, and the groups it is of (`length=64`, `depth=0.5`)."""
    whole, *groups = GROUP.split(metric)
    sample_name, _, column = whole.rpartition(".")
    return sample_name, column, groups


def averaged(record: Record, sample_name: str, groups: Sequence[str]) -> Scored | None:
    """The items that a metric averages; of groups their own."""
    items = record.samples(sample_name)
    for group in groups:
        name, _, value = group.partition("=")
        items = items.where(name, value) if items is not None and name in items else None
    return items


def ratio_items(items: Scored, metric: str, values_N: Array, printed: float) -> Array | None:
    """Items of a ratio of sums (bits per byte), linearised so that their mean is the printed ratio.

    Item i counts R + w_i / mean(w) (x_i - R): means, paired differences and their errors are then those of
    the ratio. None where the plain mean is what was printed, or no weight explains it.
    """
    if np.isnan(values_N).any() or math.isclose(float(values_N.mean()), printed, rel_tol=1e-3):
        return None
    for column in items.weights_of(metric):
        weights_N = items.numbers(column)
        if weights_N.sum() > 0 and math.isclose(
            float((weights_N * values_N).sum() / weights_N.sum()), printed, rel_tol=1e-3
        ):
            return np.asarray(printed + weights_N / weights_N.mean() * (values_N - printed))
    return None
