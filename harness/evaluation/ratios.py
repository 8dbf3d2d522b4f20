"""Ratios of sums over items, such as bits per byte: a long item weighs more than a short one."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.axes.evaluator import Metric

Array = np.ndarray[Any, Any]


def ratio_metric(task: str, metric: str, totals: Array, weights: Array, *, unit: str) -> Metric:
    """Sum of `totals` over sum of `weights` (both `(N,)`), lower being better, with its error over items."""
    return Metric(
        task=task,
        metric=metric,
        value=float(totals.sum() / weights.sum()),
        unit=unit,
        higher_is_better=False,
        stderr=ratio_error(totals, weights),
        n=len(totals),
    )


def ratio_error(totals: Array, weights: Array) -> float | None:
    """Standard error of sum(totals) / sum(weights) over items, None for a single one.

    Source: the ratio estimator (Cochran 1977, Sampling Techniques, equation 6.9)
    """
    count = len(totals)
    if count < 2:
        return None
    residuals = totals - totals.sum() / weights.sum() * weights
    return float(np.sqrt(count * residuals.var(ddof=1)) / weights.sum())
