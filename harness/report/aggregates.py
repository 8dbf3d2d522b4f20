"""What several tasks say together, as the field aggregates them: IQM, profiles, improvement, win rates.

A run is one seed of a configuration. Scores of a task are compared with scores of that task alone, except in
the interquartile mean and the performance profile, which pool tasks and so take only shares between 0 and 1.
Paper: Agarwal et al. 2021, arXiv:2108.13264 (interquartile mean, performance profile, probability of
improvement, stratified bootstrap); Liang et al. 2022, arXiv:2211.09110, section 5.1 (mean win rate)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.report.frames import Levels, Results
from harness.report.statistics import LEVEL, Array
from harness.report.views import one_per_task

MIN_TASKS = 2
"""One task needs no aggregate."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """A number with its 95 % interval; none of one seed, where runs cannot be resampled."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One configuration over all tasks."""

    levels: Levels
    win_rate: float
    """Share of the other configurations that its mean beats (a tie counts half), averaged over tasks."""
    improvement: Ranged | None
    """Probability that a run beats a run of the baseline on a task drawn at random; None for the baseline."""
    iqm: Ranged | None
    """Interquartile mean of its scores over runs and tasks; None where tasks are no shares."""


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """All configurations over the same tasks and seeds."""

    tasks: list[str]
    shares: list[str]
    """Those of the tasks whose scores lie in [0, 1] by nature."""
    seeds: list[int]
    rows: list[Aggregate]
    left_out: list[str]
    """Configurations without a number for every task and seed."""


def aggregates(results: Results, metrics: Sequence[str]) -> Aggregates | None:
    """Every configuration that has all runs of all tasks; None with fewer than two tasks or configurations.

    `metrics` are the qualities that are decided on; a second metric of one task is no second task.
    """
    tasks = one_per_task(metrics)
    scores = {levels: scores_of(results, levels, tasks) for levels in results.records}
    whole = {levels: found for levels, found in scores.items() if not np.isnan(found).any()}
    if len(tasks) < MIN_TASKS or len(whole) < 2:
        return None
    shares = [
        i
        for i, task in enumerate(tasks)
        if results.is_share(task) and results.metrics[task].higher_is_better is True
    ]
    pooled = len(shares) >= MIN_TASKS
    baseline = tuple(results.baseline.get(factor, "") for factor in results.factors)
    means_KT = np.array([scores_ST.mean(axis=0) for scores_ST in whole.values()])
    rates = win_rates(means_KT)
    rows = []
    for place, (levels, scores_ST) in enumerate(whole.items()):
        against = whole.get(baseline) if levels != baseline else None
        rows.append(
            Aggregate(
                levels=levels,
                win_rate=float(rates[place]),
                improvement=None if against is None else ranged(improvement, scores_ST, against),
                iqm=ranged(iqm, scores_ST[:, shares]) if pooled else None,
            )
        )
    return Aggregates(
        tasks=tasks,
        shares=[tasks[i] for i in shares] if pooled else [],
        seeds=results.seeds,
        rows=rows,
        left_out=[results.name_of(levels) for levels in scores if levels not in whole],
    )


def scores_of(results: Results, levels: Levels, tasks: Sequence[str]) -> Array:
    """Runs x tasks, high where good; NaN where a run has no number.

    Shapes: scores_ST
    """
    signs = [-1.0 if results.metrics[task].higher_is_better is False else 1.0 for task in tasks]
    return np.array(
        [
            [sign * results.value(levels, seed, task) for sign, task in zip(signs, tasks, strict=True)]
            for seed in results.seeds
        ],
        dtype=float,
    )


def iqm(scores_RST: Array) -> Array:
    """Mean of the middle half of all scores: a quarter of them, rounded down, is cut at each end.

    Shapes: scores_RST, any number of resamples (R) at once; one number each
    """
    pooled_RN = np.sort(scores_RST.reshape(len(scores_RST), -1), axis=1)
    cut = pooled_RN.shape[1] // 4
    return np.asarray(pooled_RN[:, cut : pooled_RN.shape[1] - cut].mean(axis=1))


def improvement(scores_RST: Array, others_RUT: Array) -> Array:
    """Mean over tasks of P(a run of the first beats a run of the second); a tie counts half."""
    differences_RSUT = scores_RST[:, :, None, :] - others_RUT[:, None, :, :]
    return np.asarray((0.5 + 0.5 * np.sign(differences_RSUT)).mean(axis=(1, 2, 3)))


def win_rates(means_KT: Array) -> Array:
    """Of each configuration: the share of the others that it beats, mean over tasks; a tie counts half."""
    differences_KKT = means_KT[:, None, :] - means_KT[None, :, :]
    wins_KKT = (differences_KKT > 0) + 0.5 * (differences_KKT == 0)
    return np.asarray((wins_KKT.sum(axis=1) - 0.5).mean(axis=1) / (len(means_KT) - 1))


def profile(scores_ST: Array, thresholds_X: Array) -> Array:
    """Performance profile: the share of runs, over all tasks, whose score exceeds each threshold."""
    return np.asarray((scores_ST[..., None] > thresholds_X).mean(axis=(0, 1)))


def ranged(statistic: Callable[..., Array], *samples_ST: Array) -> Ranged:
    """A statistic with its stratified bootstrap interval (percentiles): runs are drawn within each task."""
    value = float(statistic(*(sample_ST[None] for sample_ST in samples_ST))[0])
    if min(len(sample_ST) for sample_ST in samples_ST) < 2:
        return Ranged(value=value)
    drawn_R = statistic(
        *(
            np.take_along_axis(sample_ST[None], draws(sample_ST.shape, place), axis=1)
            for place, sample_ST in enumerate(samples_ST)
        )
    )
    low, high = np.quantile(drawn_R, [LEVEL / 2, 1 - LEVEL / 2])
    return Ranged(value=value, low=float(low), high=float(high))


@lru_cache(maxsize=8)
def draws(shape: tuple[int, int], place: int) -> NDArray[np.int64]:
    """Which runs each resample takes, for each task on its own; the same for every configuration.

    Shapes: (RESAMPLES, runs, tasks)
    """
    runs, tasks = shape
    return np.random.default_rng(place).integers(0, runs, (RESAMPLES, runs, tasks))
