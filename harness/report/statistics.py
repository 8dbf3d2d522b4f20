"""One number at a time: its mean, its interval, and what the interval rests on.

Two kinds of statement are kept apart. About *methods*: seeds are the replicates, at least three. About
*checkpoints*: the items are the replicates and the models are taken as they are; such an interval says
nothing about what another seed would have given. Comparisons stand in `decisions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.report.simultaneous import chi_nodes

Array = NDArray[np.float64]
MIN_SEEDS = 3
"""Below this, per-seed differences say nothing about methods: the answer is `undecided`."""
MIN_ITEMS = 10
"""Below this, no test over items is made."""
LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side of a comparison.

    Shapes: items_SD, seeds x items with NaN where an item was not scored, rows in the order of `seeds`
    """

    values: Mapping[int, float]
    """Seed -> value as printed."""
    items_SD: Array | None = None
    stderr: float | None = None
    """The evaluator's own standard error, where no items were kept."""
    num_items: int = 0
    share: bool = True
    """Whether it is a share of items; a quantity with a unit is none, even where all its items are 0 or 1."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(list(self.values.values())))

    @property
    def seeds(self) -> list[int]:
        return sorted(self.values)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval and what the interval rests on."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    """Standard deviation over seeds."""
    stderr: float | None
    """Standard error over items."""
    num_seeds: int
    num_items: int
    basis: Literal["seeds", "items", "none"]


def t_quantile(df: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t."""
    return _t_quantile(float(df), float(level))


@lru_cache(maxsize=256)
def _t_quantile(df: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - level / 2))


def same(values: Array) -> bool:
    """Whether all values are one number: no replication took place."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def estimate(measured: Measured) -> Estimate:
    """Mean and interval: over seeds where three or more differ, else over items, else none."""
    values = np.array([measured.values[s] for s in measured.seeds])
    n, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else None
    stderr, num_items = measured.stderr, measured.num_items
    binary: tuple[float, float] | None = None
    if measured.items_SD is not None:
        items_D = item_means(measured.items_SD)
        num_items = len(items_D)
        if num_items > 1:
            stderr = float(items_D.std(ddof=1) / num_items**0.5)
        if measured.share and num_items and bool(np.isin(items_D, (0, 1)).all()):
            binary = wilson(mean, num_items)
    parts: dict[str, Any] = {
        "mean": mean,
        "sd": sd,
        "stderr": stderr,
        "num_seeds": n,
        "num_items": num_items,
    }
    if n >= MIN_SEEDS and sd is not None and not same(values):
        half = t_quantile(n - 1) * sd / n**0.5
        low, high = inside(mean - half, mean + half, share=measured.share)
        return Estimate(**parts, low=low, high=high, basis="seeds")
    if stderr is not None and num_items >= MIN_ITEMS:
        half = t_quantile(num_items - 1) * stderr
        low, high = binary or inside(mean - half, mean + half, share=measured.share)
        return Estimate(**parts, low=low, high=high, basis="items")
    return Estimate(**parts, low=None, high=None, basis="none")


def inside(low: float, high: float, *, share: bool) -> tuple[float, float]:
    """An interval of a share without what lies beyond 0 and 1, where no share can."""
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share; honest at 0 and 1, where the normal one has no width."""
    z = t_quantile(1e9)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def item_means(items_SD: Array) -> Array:
    """Mean over seeds of each item that every seed scored."""
    kept = items_SD[:, ~np.isnan(items_SD).any(axis=0)]
    return np.asarray(kept.mean(axis=0))


def noncentrality(df: float, critical: float, power: float) -> float:
    """Shift of Student's t, in standard errors, at which it exceeds `critical` with the stated power."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    s_S, weights_S = chi_nodes(df)
    return float(
        brentq(lambda shift: float(weights_S @ ndtr(shift - critical * s_S)) - power, -10, 20 * critical + 20)
    )
