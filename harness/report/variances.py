"""Spreads of few seeds: residuals of arms and blocks, and variances moderated over the arms.

Three seeds leave two degrees of freedom an arm. Empirical Bayes takes the arms' variances as draws from a
scaled inverse chi-square and shrinks each towards its location, as far as the arms themselves agree.

Paper: Smyth 2004, doi:10.2202/1544-6115.1027
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PRIOR_DF = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 1e4])
"""Degrees of freedom of the prior among which the likeliest is taken; the last is full pooling."""
PRIOR_SCALE = np.exp(np.linspace(-2.5, 2.5, 41))
"""The prior's location, in units of the arms' typical variance."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variances of one observation of each arm. Shapes: all K, arms."""

    own: Array
    """From the arm's residuals alone."""
    own_df: Array
    moderated: Array
    df: Array
    """Degrees of freedom of `moderated`: the prior's and the arm's, at most those of all residuals."""
    total_df: float


def spread(groups: Sequence[Array], *, floor: float = 0.0, noise: float = 0.0) -> list[Spread]:
    """Spread of the arms of each group around arm + block, both fixed; one prior for all groups.

    `floor` is the variance that rounding alone gives (the resolution of a share of few items), `noise` the
    residual up to which the arithmetic of floats alone may be seen: it counts as none.
    Shapes: groups, each arms x blocks with NaN where an arm lacks a block
    """
    found = [residual_variances(values_KS, noise=noise) for values_KS in groups]
    own = np.maximum(np.concatenate([own_K for own_K, _ in found]), floor)
    df = np.concatenate([df_K for _, df_K in found])
    total = float(df.sum())
    prior_df, prior = fitted_prior(own, df)
    weight = prior_df + df
    moderated = (prior_df * prior + df * own) / np.where(weight > 0, weight, 1.0)
    parts = (own, df, moderated, np.minimum(weight, total))
    ends = np.cumsum([len(own_K) for own_K, _ in found])[:-1]
    return [
        Spread(own=o, own_df=d, moderated=m, df=w, total_df=total)
        for o, d, m, w in zip(*(np.split(part, ends) for part in parts), strict=True)
    ]


def residual_variances(values_KS: Array, *, noise: float = 0.0) -> tuple[Array, Array]:
    """Each arm's residual variance and its degrees of freedom.

    An arm's degrees of freedom are what its residuals keep, the sum of 1 - leverage; they add up to those of
    the least-squares fit. With two arms both have half the variance of their difference.
    """
    there_KS = ~np.isnan(values_KS)
    counts_K = there_KS.sum(axis=1)
    used = counts_K > 0
    n_K = np.maximum(counts_K, 1)[:, None]
    y_KS = np.where(there_KS, values_KS, 0.0)
    y_KS = np.where(there_KS, y_KS - y_KS.sum(axis=1, keepdims=True) / n_K, 0.0)
    m_KS = there_KS.astype(np.float64)
    normal_SS = np.diag(m_KS.sum(axis=0)) - m_KS.T @ (m_KS / n_K)
    inverse_SS = np.linalg.pinv(normal_SS, hermitian=True)
    blocks_S = inverse_SS @ y_KS.sum(axis=0)
    shift_K = (m_KS @ blocks_S)[:, None] / n_K
    residuals_KS = np.where(there_KS, y_KS - (blocks_S[None, :] - shift_K), 0.0)
    through_KS = m_KS @ inverse_SS / n_K
    leverage_KS = (
        1 / n_K
        + np.diag(inverse_SS)[None, :]
        - 2 * through_KS
        + ((through_KS * m_KS).sum(axis=1, keepdims=True) / n_K)
    )
    df_K = np.where(used, (m_KS * (1 - leverage_KS)).sum(axis=1), 0.0)
    df_K = np.where(df_K > 1e-6, df_K, 0.0)
    residuals_KS[np.abs(residuals_KS) <= noise] = 0.0
    squares_K = (residuals_KS**2).sum(axis=1)
    own_K = np.where(df_K > 0, squares_K / np.where(df_K > 0, df_K, 1.0), 0.0)
    return own_K, df_K


def fitted_prior(own_K: Array, df_K: Array) -> tuple[float, float]:
    """Degrees of freedom and location of the variances' prior, by maximum marginal likelihood.

    Differs: Smyth matches moments of log variances, which two degrees of freedom and a zero make unstable;
    the likelihood is that of his equation 4, s2 / s0 ~ F(df, d0). An arm without spread counts as the
    thousandth part of the typical one.
    """
    from scipy.special import betaln

    kept = df_K > 0
    own, df = own_K[kept], df_K[kept]
    if len(own) < 2 or not (own > 0).any():
        return 0.0, 0.0
    typical = float((own * df).sum() / df.sum())
    own = np.maximum(own, 1e-3 * typical)
    middle = float(np.exp((np.log(own) * df).sum() / df.sum()))
    d0 = PRIOR_DF[:, None, None]
    s0 = (middle * PRIOR_SCALE)[None, :, None]
    ratio = own[None, None, :] / s0
    log_likelihood = (
        (df / 2) * np.log(df / d0)
        + (df / 2 - 1) * np.log(ratio)
        - (df + d0) / 2 * np.log1p(df * ratio / d0)
        - betaln(df / 2, d0 / 2)
        - np.log(s0)
    ).sum(axis=-1)
    best_df, best_scale = np.unravel_index(int(np.argmax(log_likelihood)), log_likelihood.shape)
    return float(PRIOR_DF[best_df]), float(middle * PRIOR_SCALE[best_scale])
