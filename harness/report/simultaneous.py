"""Critical values for many comparisons at once: the largest of several Student's t with one denominator.

Comparisons with one control are correlated as lambda_i lambda_j, which gives Dunnett's critical value.
With no correlation at all it is the studentized maximum modulus, which by Sidak's inequality bounds every
other correlation: it serves families of any contrasts.

Paper: Dunnett 1955, doi:10.1080/01621459.1955.10501294; Sidak 1967, doi:10.1080/01621459.1967.10482935
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

X = np.linspace(-9.0, 9.0, 481)
"""Where the distribution of the largest normal variable is tabulated."""
Z = np.linspace(-7.0, 7.0, 141)
"""The common part of correlated normal variables."""
CANDIDATES = np.geomspace(0.05, 2000.0, 480)
"""Critical values among which one is sought."""
STEP = 0.05
"""Correlations are rounded down to multiples of its square, which errs to the safe side."""


class MaxT:
    """The distribution of max |T_k|, T_k = Z_k / S, corr(Z_i, Z_j) = lambda_i lambda_j, S ~ chi / sqrt(df).

    `sides=1` is the distribution of max T_k, which comparisons with the best need.
    Error: critical values to about 0.5 % of themselves, to the safe side
    """

    def __init__(self, loadings: Sequence[float], *, sides: int = 2) -> None:
        # Few distinct loadings: a table of a thousand cells with equal spread has one.
        counts = Counter(int(min(0.95, v) / STEP + 1e-9) for v in loadings)
        self._counts = tuple(sorted(counts.items()))
        self._sides = sides

    @property
    def size(self) -> int:
        """How many comparisons the family holds."""
        return sum(count for _, count in self._counts)

    def levels(self, *, df: float) -> Array:
        """The family-wise level of each of CANDIDATES: a decreasing sequence in [0, 1]."""
        return levels_of(self._counts, self._sides, two_digits_down(df))

    def students(self, *, df: float, own_df: float, share: float) -> Array:
        """Two-sided quantiles of one Student's t at a multiple of each of `levels`; increasing."""
        return students_of(self._counts, self._sides, two_digits_down(df), own_df, share)

    def critical(self, level: float, *, df: float) -> float:
        """The value that max |T_k| exceeds with probability `level`."""
        return float(np.interp(-level, -self.levels(df=df), CANDIDATES))


def two_digits_down(df: float) -> float:
    """24.0 for 24.6, 1.8 for 1.87: few distinct values, none larger than asked."""
    unit = 10.0 ** (math.floor(math.log10(max(df, 1e-3))) - 1)
    return math.floor(df / unit + 1e-9) * unit


@lru_cache(maxsize=4096)
def levels_of(counts: tuple[tuple[int, int], ...], sides: int, df: float) -> Array:
    """P(max |T_k| > c) for each candidate c."""
    s_S, weights_S = chi_nodes(df)
    at_CS = CANDIDATES[:, None] * s_S
    below_C = np.interp(at_CS, X, largest_normal(counts, sides), left=0.0, right=1.0) @ weights_S
    return np.asarray(np.clip(1 - below_C, 0.0, 1.0))


@lru_cache(maxsize=4096)
def students_of(
    counts: tuple[tuple[int, int], ...], sides: int, df: float, own_df: float, share: float
) -> Array:
    """Student's t at `share` of the level of each candidate c, at most 1."""
    from scipy.special import stdtrit

    levels_C = np.minimum(1.0, share * levels_of(counts, sides, df))
    return np.asarray(stdtrit(own_df, 1 - np.maximum(levels_C, 1e-15) / 2))


@lru_cache(maxsize=512)
def largest_normal(counts: tuple[tuple[int, int], ...], sides: int) -> Array:
    """P(the largest of the normal variables <= x) at each x of X."""
    weights_Z = np.exp(-(Z**2) / 2)
    log_ZX = sum((count * log_below(loading, sides) for loading, count in counts), np.zeros((len(Z), len(X))))
    return np.asarray(weights_Z / weights_Z.sum() @ np.exp(log_ZX))


@lru_cache(maxsize=64)
def log_below(loading: int, sides: int) -> Array:
    """log P(one variable <= x) given the common part, Z x X; `loading` in steps."""
    from scipy.special import ndtr

    correlation = loading * STEP
    rest = (1 - correlation**2) ** 0.5
    at_ZX = X[None, :] - correlation * Z[:, None]
    upper = ndtr(at_ZX / rest)
    lower = ndtr((-X[None, :] - correlation * Z[:, None]) / rest) if sides == 2 else 0.0
    return np.asarray(np.log(np.maximum(upper - lower, 1e-300)))


@lru_cache(maxsize=4096)
def chi_nodes(df: float) -> tuple[Array, Array]:
    """Nodes and weights of S = chi_df / sqrt(df); closest where S is small, which large T come from."""
    from scipy.special import chdtri

    if df > 1e5:
        return np.ones(1), np.ones(1)
    u_S, weights_S = _legendre()
    u_S = (u_S + 1) / 2
    return np.sqrt(chdtri(df, 1 - u_S**3) / df), weights_S / 2 * 3 * u_S**2


@cache
def _legendre() -> tuple[Array, Array]:
    """Nodes and weights of Gauss and Legendre on [-1, 1]."""
    u, weights = np.polynomial.legendre.leggauss(48)
    return np.asarray(u), np.asarray(weights)
