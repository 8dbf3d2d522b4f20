"""The guarded simultaneous interval of a contrast over seeds.

Guards: pooled variances are wrong for an arm that is noisier than the rest. So an arm weighs with the larger
of its moderated variance at the family's critical value and its own variance at Student's t, and a difference
must also stand out from its own per-seed spread. The levels of these two are calibrated by simulation
(tests/report/test_calibration.py, tests/benchmarks/bench_calibration.py): one arm up to 20 times noisier,
3 to 10 seeds, 3 to 25 arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.report.model import Parts
from harness.report.simultaneous import CANDIDATES, MaxT
from harness.report.statistics import LEVEL

GUARD_PER_SEED, GUARD_PER_PEER = 2.7, 1.5
"""The level of an arm's own t, relative to the family's: max(2.7 / seeds, 1.5 / peers), at most 1."""
MANY = 12
"""Peers from which on the first shrinks, by their sixth root: more arms find more in a noisy baseline."""


GUARD_OF_DIFFERENCE = 2.0
"""The level of a difference's own paired t, relative to the family's."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Half the width of a simultaneous interval, and the adjusted p."""

    half: float
    p: float


def interval(parts: Parts, family: MaxT, *, level: float = LEVEL) -> Interval:
    """The guarded simultaneous interval of a contrast over seeds.

    Raises: ValueError with fewer than two seeds
    """
    n = parts.num_seeds
    if n < 2:
        raise ValueError("an interval over seeds needs two")
    difference = abs(float(parts.per_seed_S.mean()))
    df = parts.df
    levels_C = family.levels(df=df)
    peers_A = np.maximum(parts.peers_A, 1)
    per_seed_A = GUARD_PER_SEED / n * np.minimum(1.0, (MANY / peers_A) ** (1 / 6))
    share_A = np.minimum(1.0, np.maximum(per_seed_A, GUARD_PER_PEER / peers_A))
    t_AC = np.reshape(
        [family.students(df=df, own_df=n - 1, share=share) for share in share_A.tolist()], (-1, len(levels_C))
    )
    squares_AC = np.maximum(
        parts.moderated_A[:, None] * CANDIDATES[None, :] ** 2, parts.own_A[:, None] * t_AC**2
    )
    half_C = np.sqrt(parts.squares_A @ squares_AC / n)
    own = float(parts.per_seed_S.std(ddof=1)) / n**0.5
    own_C = family.students(df=df, own_df=n - 1, share=GUARD_OF_DIFFERENCE)
    half_C = np.maximum(half_C, own * own_C)
    half_C = np.maximum.accumulate(half_C)
    half = float(np.interp(-level, -levels_C, half_C))
    if half == 0:
        return Interval(half=0.0, p=0.0 if difference > 0 else 1.0)
    p = float(np.interp(difference, half_C, levels_C))
    # At the edge interpolation must not part the p from the interval.
    p = min(p, level) if difference > half else max(p, level)
    return Interval(half=half, p=min(1.0, max(0.0, p)))
