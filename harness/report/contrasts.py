"""What is compared, a weighted sum of configurations, and what the answer to it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from harness.report.frames import Levels
from harness.report.numbers import counted
from harness.report.statistics import MIN_SEEDS

About = Literal["methods", "checkpoints", "nothing"]


Key = tuple[tuple[str, Levels, float], ...]
"""What tells contrasts apart, whatever their direction."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of configurations that is 0 where nothing differs, over some seeds."""

    weights: tuple[tuple[str, Levels, float], ...]
    """(metric, configuration, weight), sorted."""
    seeds: tuple[int, ...]
    left_out: str = ""
    """What of the other factors' combinations could not be used on both sides."""
    dropped: tuple[tuple[Levels, float], ...] = ()
    """Those of them that both sides have, with their side's weight: their divergence counts all the same."""

    @property
    def key(self) -> Key:
        """The same for a contrast and its reverse."""
        flip = bool(self.weights) and self.weights[0][2] < 0
        return tuple((m, v, round(-w if flip else w, 9)) for m, v, w in self.weights)

    @property
    def metrics(self) -> set[str]:
        return {metric for metric, _, _ in self.weights}


class Diverged(NamedTuple):
    """How many runs of one side ended without a model."""

    lost: int
    runs: int

    def among(self, num_seeds: int) -> str:
        """`at 2 of 5 seeds` of one configuration, `in 2 of 15 runs` of several."""
        what = "at {} of {} seeds" if self.runs == num_seeds else "in {} of {} runs"
        return what.format(self.lost, self.runs)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference, its simultaneous interval, and how far it can be believed."""

    test: str
    """`simultaneous t`, `document bootstrap`, `exact` (nothing sampled), or `none`."""
    about: About
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Adjusted for the whole family: at most 5 % where the interval excludes 0."""
    stderr: float | None = None
    df: float | None = None
    num_seeds: int = 0
    num_items: int = 0
    family: int = 0
    """How many comparisons are covered together."""
    detectable: float | None = None
    """Smallest difference that this comparison finds with 80 % power."""
    drawn: bool = True
    """Whether another seed could have given other numbers."""
    reason: str = ""
    """Why no statement about methods is made, where none is."""
    left_out: str = ""
    diverged: tuple[Diverged, Diverged] = (Diverged(0, 1), Diverged(0, 1))
    """Of the side that is added, and of the one that is taken away."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.excludes(0.0)

    def excludes(self, value: float) -> bool:
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def reversed(self) -> Comparison:
        """The same of the reversed contrast."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, difference=-self.difference, low=low, high=high, diverged=self.diverged[::-1])

    def holds(self, *, above: bool | None, higher_is_better: bool | None) -> bool:
        """Whether it still lies above a limit (below; inside two where None), whatever diverged values were.

        The convention: what diverged is worse than all that did not, so the side that diverged more often is
        worse than its mean says. Where no direction is better, it may have been anything.
        """
        added, taken = (side.lost / side.runs for side in self.diverged)
        if added == taken:
            return True
        if above is None or higher_is_better is None:
            return False
        return above == ((taken > added) == higher_is_better)

    def divergence(self, num_seeds: int, *, other: str) -> str:
        """How often either side diverged, in words; empty where none did."""
        own, against = self.diverged
        if not own.lost and not against.lost:
            return ""
        often = against.among(num_seeds)
        if own.runs == against.runs:
            often = often.partition(" of ")[0]
        return f"diverged {own.among(num_seeds)}, {other} {often}"


def added(terms: Iterable[tuple[str, Levels, float]]) -> tuple[tuple[str, Levels, float], ...]:
    """Terms of one configuration together, those that cancel left out, sorted."""
    sums: dict[tuple[str, Levels], float] = {}
    for metric, levels, weight in terms:
        sums[metric, levels] = sums.get((metric, levels), 0.0) + weight
    return tuple(sorted((m, v, w) for (m, v), w in sums.items() if abs(w) > 1e-12))


def canonical(contrast: Contrast) -> Contrast:
    """The contrast or its reverse, whichever has a positive first weight."""
    if not contrast.weights or contrast.weights[0][2] > 0:
        return contrast
    return replace(contrast, weights=tuple((m, v, -w) for m, v, w in contrast.weights))


def exact(difference: float, *, num_seeds: int) -> Comparison:
    """Nothing was sampled and no seed moves it: the number is the answer."""
    return Comparison(
        test="exact",
        about="methods",
        difference=difference,
        low=difference,
        high=difference,
        num_seeds=num_seeds,
    )


def too_few(num_seeds: int) -> str:
    return f"{counted(num_seeds, 'seed')} where {MIN_SEEDS} are needed to speak of methods"


def one_run(num_seeds: int) -> str:
    return f"all {num_seeds} seeds rest on the same run, so seeds are no replicates here"
