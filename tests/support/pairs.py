"""Covering arrays: rows of one level a factor, in which every pair of levels of two factors stands."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

Levels = Mapping[str, Sequence[str]]
Pair = tuple[str, str]
"""Two levels, `factor=level` each, in alphabetical order."""


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """The pairs that one row holds."""
    return set(itertools.combinations(sorted(f"{factor}={level}" for factor, level in row.items()), 2))


def every_pair(levels: Levels) -> set[Pair]:
    """All pairs of levels of different factors."""
    found: set[Pair] = set()
    for first, second in itertools.combinations(levels, 2):
        for row in itertools.product(levels[first], levels[second]):
            found |= pairs_of(dict(zip((first, second), row, strict=True)))
    return found


def next_row(levels: Levels, uncovered: set[Pair], draw: random.Random) -> dict[str, str]:
    """A row that starts from an uncovered pair and takes, factor by factor, what covers most beside it.

    Paper: Cohen et al. 1997, The AETG system, section 3 (one candidate, factors in random order)
    """
    seed = draw.choice(sorted(uncovered))
    row = dict(text.split("=", 1) for text in seed)
    for factor in draw.sample(sorted(levels), len(levels)):
        if factor not in row:
            choices = draw.sample(list(levels[factor]), len(levels[factor]))
            row[factor] = max(choices, key=lambda level: len(pairs_of({**row, factor: level}) & uncovered))
    return row
