"""The guarded simultaneous interval of a contrast over seeds.

Guards: pooled variances are wrong for an arm that is noisier than the rest. So a difference must also exceed
what each of its arms alone makes likely: Student's t on the arm's own variance, plus, where other comparisons
of the family share that arm and with it its luck, the largest noise that they add to it. And it must stand
out from its own per-seed spread. Calibrated by simulation (tests/report/test_calibration.py,
tests/benchmarks/bench_calibration.py): one arm or the baseline up to 10 times noisier, 3 to 10 seeds, 3 to 25
arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.report.model import Array, Parts, Places
from harness.report.simultaneous import CANDIDATES, MaxT
from harness.report.statistics import LEVEL

GUARD_PER_SEED, GUARD_PER_PEER = 2.7, 1.5
"""The level of the t of an arm that one comparison alone weighs, relative to the family's: max(2.7 / seeds,
1.5 / comparisons), at most 1."""
MANY = 12
"""Comparisons from which on the first shrinks, by their sixth root: among more arms more are noisy."""
LUCK = 0.7
"""Quantile of the largest of the other comparisons' noise that stands beside the noise that all share."""
GUARD_OF_DIFFERENCE = 2.0
"""The level of a difference's own paired t, relative to the family's."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Half the width of a simultaneous interval, and the adjusted p."""

    half: float
    p: float


def interval(
    parts: Parts, family: MaxT, *, together_A: Places | None = None, level: float = LEVEL
) -> Interval:
    """The guarded simultaneous interval of a contrast over seeds.

    Shapes: together_A, how many contrasts of the family weigh each arm; one each where null
    Raises: ValueError with fewer than two seeds
    """
    n = parts.num_seeds
    if n < 2:
        raise ValueError("an interval over seeds needs two")
    difference = abs(float(parts.per_seed_S.mean()))
    df = parts.df
    levels_C = family.levels(df=df)
    variances_A = parts.squares_A * parts.moderated_A
    half_C = CANDIDATES * float(variances_A.sum()) ** 0.5
    if len(variances_A):
        others_A = np.maximum(float(variances_A.sum()) - variances_A, 0.0) ** 0.5
        shared_A = np.ones_like(variances_A) if together_A is None else together_A.astype(np.float64)
        share_A = np.where(shared_A > 1, 1.0, share_of(n, family.size))
        t_AC = np.array([family.students(df=df, own_df=n - 1, share=share) for share in share_A.tolist()])
        own_A = np.sqrt(parts.squares_A * parts.own_A * around_others(parts.siblings_A, shared_A))
        with_luck_A = largest_luck(shared_A) * others_A
        half_C = np.maximum(half_C, (own_A[:, None] * t_AC + with_luck_A[:, None]).max(axis=0))
    own_C = family.students(df=df, own_df=n - 1, share=GUARD_OF_DIFFERENCE)
    half_C = np.maximum(half_C, float(parts.per_seed_S.std(ddof=1)) * own_C)
    half_C = np.maximum.accumulate(half_C) / n**0.5
    half = float(np.interp(-level, -levels_C, half_C))
    if half == 0:
        return Interval(half=0.0, p=0.0 if difference > 0 else 1.0)
    p = float(np.interp(difference, half_C, levels_C))
    # At the edge interpolation must not part the p from the interval.
    p = min(p, level) if difference > half else max(p, level)
    return Interval(half=half, p=min(1.0, max(0.0, p)))


def share_of(num_seeds: int, comparisons: int) -> float:
    """The level of the t of an arm that one comparison alone weighs, relative to the family's."""
    shrunk: float = min(1.0, (MANY / max(comparisons, 1)) ** (1 / 6))
    per_seed = GUARD_PER_SEED / num_seeds * shrunk
    return min(1.0, max(per_seed, GUARD_PER_PEER / max(comparisons, 1)))


def around_others(siblings_A: Array, together_A: Array) -> Array:
    """What an arm's residual variance lacks where it is far noisier than its siblings.

    Residuals around a mean that holds the arm itself have (C - 1) / C of its variance, the two arms of one
    comparison together ((C - 1)^2 + 1) / (C (C - 1)).
    """
    others_A = np.maximum(siblings_A - 1.0, 1.0)
    whole_A = siblings_A / others_A
    pair_A = siblings_A * others_A / (others_A**2 + 1.0)
    return np.asarray(np.where(siblings_A < 2, 1.0, np.where(together_A > 1, whole_A, pair_A)))


def largest_luck(together_A: Array) -> Array:
    """What the largest of the other contrasts adds to an arm that all weigh, in its standard deviations."""
    from scipy.special import ndtri

    others_A = np.maximum(together_A - 1.0, 1e-9)
    return np.asarray(np.where(together_A > 1, np.maximum(ndtri(LUCK ** (1 / others_A)), 0.0), 0.0))
