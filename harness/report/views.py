"""What the figures show, computed from records: effects, interactions, fronts, curves, ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.report.contrasts import Comparison, Contrast
from harness.report.decisions import Decisions
from harness.report.frames import Levels, Results
from harness.report.statistics import Array, Measured, estimate

Ends = tuple[float, float] | None
"""Both ends of an interval."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How much a level moves a metric against its factor's baseline, averaged over the other factors."""

    factor: str
    level: str
    metric: str
    comparison: Comparison
    given: str = ""
    """For an interaction: the other factor's level under which the effect is compared to its baseline's."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A configuration in two metrics, with the 95 % intervals that they have."""

    levels: Levels
    x: float
    y: float
    x_range: Ends = None
    y_range: Ends = None
    on_front: bool = False

    def scaled(self, x: float, y: float) -> Point:
        """The same with both metrics times a factor."""
        x_range = self.x_range and (self.x_range[0] * x, self.x_range[1] * x)
        y_range = self.y_range and (self.y_range[0] * y, self.y_range[1] * y)
        return replace(self, x=self.x * x, y=self.y * y, x_range=x_range, y_range=y_range)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line with the configuration it belongs to; `spread` is the range over seeds."""

    levels: tuple[str, ...]
    x: Array
    y: Array
    low: Array
    high: Array


def baseline_level(results: Results, factor: str) -> str:
    """The declared baseline of a factor, else its first level."""
    return results.baseline.get(factor, results.factors[factor][0])


def marginal_effects(decisions: Decisions, metric: str) -> list[Effect]:
    """Each level against its factor's baseline, over the other levels that both have; one family a metric."""
    results = decisions.results
    asked: list[tuple[str, str, str, Contrast]] = []
    for factor, levels in results.factors.items():
        baseline = baseline_level(results, factor)
        for level in levels:
            if level != baseline:
                contrast = decisions.contrast([(1.0, {factor: level}), (-1.0, {factor: baseline})], metric)
                if contrast is not None:
                    asked.append((factor, level, "", contrast))
    return answered(decisions, asked, metric=metric, family=f"view effects {metric}")


def interactions(decisions: Decisions, metric: str) -> list[Effect]:
    """Difference of differences for each pair of factors: does an effect change under another's level?"""
    results = decisions.results
    asked: list[tuple[str, str, str, Contrast]] = []
    for a, b in itertools.combinations(results.factors, 2):
        base_a, base_b = baseline_level(results, a), baseline_level(results, b)
        for level, given in itertools.product(results.factors[a], results.factors[b]):
            if level == base_a or given == base_b:
                continue
            sides = [
                (sign * sign_of_other, {a: own, b: other})
                for other, sign_of_other in ((given, 1.0), (base_b, -1.0))
                for own, sign in ((level, 1.0), (base_a, -1.0))
            ]
            contrast = decisions.contrast(sides, metric)
            if contrast is not None:
                asked.append((a, level, f"{results.text(b)} = {results.text(given)}", contrast))
    return answered(decisions, asked, metric=metric, family=f"view interactions {metric}")


def answered(
    decisions: Decisions, asked: Sequence[tuple[str, str, str, Contrast]], *, metric: str, family: str
) -> list[Effect]:
    """Effects of contrasts that are asked together."""
    decisions.declare(family, [contrast for *_, contrast in asked])
    return [
        Effect(factor=factor, level=level, metric=metric, comparison=decisions.compare(contrast), given=given)
        for factor, level, given, contrast in asked
    ]


def pareto(results: Results, *, cost: str, quality: str) -> list[Point]:
    """All configurations in two metrics, those that no other beats in both marked.

    Directions are the metrics' own; a cost that is a fact is better low.
    """
    points = []
    for levels in results.records:
        where = dict(zip(results.factors, levels, strict=True))
        x, y = results.measured(where, cost), results.measured(where, quality)
        if x is not None and y is not None:
            points.append(Point(levels=levels, x=x.mean, y=y.mean, x_range=ends(x), y_range=ends(y)))
    sign_x = -1 if results.metrics[cost].higher_is_better else 1
    sign_y = 1 if results.metrics[quality].higher_is_better is not False else -1
    values_P2 = np.array([[sign_x * p.x, sign_y * p.y] for p in points]).reshape(len(points), 2)
    return [
        replace(p, on_front=not bool(beaten_by(values_P2, own_2).any()))
        for p, own_2 in zip(points, values_P2, strict=True)
    ]


def beaten_by(values_P2: Array, own_2: Array) -> Array:
    """Which points are no dearer and no worse than one, and not the same."""
    no_worse = (values_P2[:, 0] <= own_2[0]) & (values_P2[:, 1] >= own_2[1])
    return np.asarray(no_worse & (values_P2 != own_2).any(axis=1))


def ends(measured: Measured) -> Ends:
    """The interval of a number; None where it has none."""
    found = estimate(measured)
    return None if found.low is None or found.high is None else (found.low, found.high)


def loss_curves(results: Results, stage: str, *, against: str = "steps") -> list[Curve]:
    """Training losses of a stage by configuration, mean and range over seeds.

    `against` is steps, tokens, bytes, flops or seconds: points are spread evenly over what the whole stage
    measured. Configurations that share one run share one curve.
    """
    by_run: dict[str, tuple[Array, Array]] = {}
    owners: dict[tuple[str, ...], list[Levels]] = {}
    for levels, by_seed in results.records.items():
        runs = []
        for record in by_seed.values():
            facts = record.data.get("facts", {}).get(stage) or {}
            points = facts.get("loss_curve")
            key = next((s["key"] for s in record.data.get("stages", []) if s["stage"] == stage), record.cell)
            if record.status == "ok" and points and (xy := curve_points(points, facts, against)):
                by_run[key] = xy
                runs.append(key)
        if runs:
            owners.setdefault(tuple(sorted(set(runs))), []).append(levels)
    curves = []
    for runs_of, who in owners.items():
        x, _ = by_run[runs_of[0]]
        lines = np.array([np.interp(x, *by_run[run]) for run in runs_of])
        curves.append(
            Curve(
                levels=common_levels(results, who),
                x=x,
                y=lines.mean(axis=0),
                low=lines.min(axis=0),
                high=lines.max(axis=0),
            )
        )
    return curves


def curve_points(points: Sequence[Sequence[float]], facts: Mapping[str, Any], against: str) -> Any:
    """Finite points with x in the asked unit; None where the stage did not measure it."""
    xy = np.array([[float(p[0]), float(p[1])] for p in points if p[1] is not None and math.isfinite(p[1])])
    if len(xy) < 2:
        return None
    if against == "steps":
        return xy[:, 0], xy[:, 1]
    measured = (facts.get(against), facts.get("steps"))
    total, steps = (value if isinstance(value, int | float) else None for value in measured)
    return (xy[:, 0] * (total / (steps or xy[-1, 0])), xy[:, 1]) if total else None


def common_levels(results: Results, who: Sequence[Levels]) -> tuple[str, ...]:
    """The levels that all these configurations have and some other has not, as `factor = level`."""
    named = []
    for i, factor in enumerate(results.factors):
        levels = {levels[i] for levels in who}
        if len(levels) == 1 and len(results.factors[factor]) > 1:
            named.append(f"{results.text(factor)} = {results.text(next(iter(levels)))}")
    return tuple(named)


def by_column(results: Results, sample_name: str, column: str, metric: str) -> list[Curve]:
    """Mean of a metric at each value of a sample column (`position`, `length`), by configuration."""
    curves = []
    for levels, by_seed in results.records.items():
        lines: list[dict[float, float]] = []
        for record in by_seed.values():
            items = record.samples(sample_name) if record.status == "ok" else None
            if items is not None and items.measures(column) and items.measures(metric):
                means = items.frame().groupby(column)[metric].mean().dropna()
                lines.append(dict(zip(means.index.astype(float), means.astype(float), strict=True)))
        shared = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
        if len(shared) > 1:
            y_SX = np.array([[line[x] for x in shared] for line in lines], dtype=float)
            curves.append(
                Curve(
                    levels=levels,
                    x=np.array(shared, dtype=float),
                    y=y_SX.mean(axis=0),
                    low=y_SX.min(axis=0),
                    high=y_SX.max(axis=0),
                )
            )
    return curves


MIN_BLOCKS = 5
"""Below this many tasks Friedman's test has no say and no diagram is drawn."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Average ranks of configurations over tasks, and which cannot be told apart."""

    names: list[str]
    ranks: list[float]
    critical_difference: float
    p: float
    """Friedman's test that all are equal."""
    blocks: int


def one_per_task(metrics: Sequence[str]) -> list[str]:
    """The first metric of each task: a second one of the same answers is no second task."""
    found: dict[str, str] = {}
    for metric in metrics:
        found.setdefault(metric.rpartition(".")[0], metric)
    return list(found.values())


def average_ranks(results: Results, metrics: Sequence[str], *, level: float = 0.05) -> Ranks | None:
    """Friedman's test with Nemenyi's critical difference; a block is a task, its value the mean over seeds.

    A configuration that diverged at a seed ranks last there; one that lacks a number for another reason is
    left out. None with fewer than three configurations or five tasks.
    Paper: Demsar 2006, Statistical comparisons of classifiers over multiple data sets, section 3.2.2
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    tasks = one_per_task(metrics)
    values_KB = np.array([[task_value(results, levels, m) for m in tasks] for levels in results.records])
    values_KB = values_KB.reshape(len(results.records), len(tasks))
    kept = ~np.isnan(values_KB).any(axis=1)
    values_KB, k, blocks = values_KB[kept], int(kept.sum()), len(tasks)
    if k < 3 or blocks < MIN_BLOCKS:
        return None
    ranks_KB = rankdata(values_KB, axis=0)
    names = [results.name_of(levels) for levels, keep in zip(results.records, kept, strict=True) if keep]
    return Ranks(
        names=names,
        ranks=[float(r) for r in ranks_KB.mean(axis=1)],
        critical_difference=float(
            studentized_range.ppf(1 - level, k, np.inf) / 2**0.5 * (k * (k + 1) / (6 * blocks)) ** 0.5
        ),
        p=float(friedmanchisquare(*ranks_KB).pvalue),
        blocks=blocks,
    )


def task_value(results: Results, levels: Levels, metric: str) -> float:
    """The mean over seeds, low where good; infinite where a seed diverged, NaN where one is missing."""
    if results.diverged(levels):
        return math.inf
    sign = 1 if results.metrics[metric].higher_is_better is False else -1
    return sign * float(np.mean([results.value(levels, seed, metric) for seed in results.seeds]))


def cliques(ranks: Ranks) -> list[tuple[float, float]]:
    """Maximal runs of ranks closer than the critical difference: the bars of the diagram."""
    ordered = sorted(ranks.ranks)
    bars: list[tuple[float, float]] = []
    for i, start in enumerate(ordered):
        end = max(r for r in ordered[i:] if r - start < ranks.critical_difference)
        if end > start and (not bars or end > bars[-1][1]):
            bars.append((start, end))
    return bars
