"""Records arranged by configuration, seed and metric: what a report computes from."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import ConfigError, UnknownNameError
from harness.report.items import Items, item_matrix
from harness.report.record import Record, flatten, visible
from harness.report.runs import replicated
from harness.report.samples import shown_items
from harness.report.statistics import MIN_SEEDS, Array, Measured

LARGEST = 1e100
"""What is larger has no square among the numbers of a machine: a diverged perplexity, say."""
NOT_IN_SWEEP = "not in the sweep"
Levels = tuple[str, ...]
"""One level for each factor, in the order of the factors."""


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """What a number is."""

    name: str
    """`<evaluator>.<task>.<metric>`, or `<stage>.<fact>` for a measured fact."""
    unit: str = ""
    higher_is_better: bool | None = None
    """None where no direction is better (facts)."""
    measured: bool = True
    """Whether an evaluator gave it; else it is a fact of a stage."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Averages that stand against each other."""

    chosen: list[list[Levels]]
    """Of each side, its configurations; the same other levels on all sides."""
    dropped: list[list[Levels]]
    """Of each side, configurations that all sides have and whose seeds were too few."""
    seeds: list[int]
    left_out: str
    """What was left out, in words."""


@dataclass(kw_only=True)
class Results:
    """Records arranged by configuration, seed and metric."""

    name: str
    factors: dict[str, list[str]]
    """Factor -> its levels in the experiment's order."""
    baseline: dict[str, str]
    seeds: list[int]
    records: dict[Levels, dict[int, Record]]
    """Configuration -> seed -> record, failed ones included."""
    notes: list[str] = field(default_factory=list)
    """What was left out and why, one sentence each."""
    marks: dict[str, list[str]] = field(default_factory=dict)
    """Cell id -> footnotes on its numbers."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Factor or level -> how the table prints it, and all that stands beside the table."""

    def text(self, name: str) -> str:
        """How a factor or level is printed."""
        return visible(str(self.labels.get(name, name)))

    def name_of(self, levels: Levels) -> str:
        """A configuration in one line."""
        return " · ".join(map(self.text, levels))

    @cached_property
    def metrics(self) -> dict[str, MetricInfo]:
        """Every metric of every record, then every numeric fact, in order of appearance."""
        found: dict[str, MetricInfo] = {}
        for record in self.all_records():
            for m in record.data["metrics"]:
                name = metric_name(m)
                found.setdefault(
                    name,
                    MetricInfo(
                        name=name, unit=m.get("unit") or "", higher_is_better=m.get("higher_is_better")
                    ),
                )
        for record in self.all_records():
            for name in facts(record):
                found.setdefault(name, MetricInfo(name=name, measured=False))
        return found

    def all_records(self) -> list[Record]:
        return [record for by_seed in self.records.values() for record in by_seed.values()]

    def resolve(self, reference: str) -> str:
        """The full name of a metric given by its last parts, e.g. `recall.acc`.

        Raises: UnknownNameError, ConfigError where several fit
        """
        if reference in self.metrics:
            return reference
        fits = [name for name in self.metrics if name.endswith("." + reference)]
        measured = [name for name in fits if self.metrics[name].measured]
        fits = measured or fits
        if not fits:
            raise UnknownNameError(what="metric", name=reference, known=self.metrics)
        if len(fits) > 1:
            raise ConfigError(f"metric '{reference}' fits {', '.join(fits)}; name one of them in full")
        return fits[0]

    def knows(self, reference: str) -> bool:
        """Whether some metric is called so."""
        return reference in self.metrics or any(name.endswith("." + reference) for name in self.metrics)

    def configurations(self, where: Mapping[str, str]) -> list[Levels]:
        """The configurations that have these levels.

        Raises: UnknownNameError for a factor or level the experiment does not have
        """
        for factor, level in where.items():
            if factor not in self.factors:
                raise UnknownNameError(
                    what=f"factor of experiment '{self.name}'", name=factor, known=self.factors
                )
            if level not in self.factors[factor]:
                raise UnknownNameError(
                    what=f"level of factor '{factor}'", name=level, known=self.factors[factor]
                )
        found = [self._with_level[factor, level] for factor, level in where.items()]
        return [self._all[i] for i in sorted(set.intersection(*found))] if found else self._all

    @cached_property
    def _all(self) -> list[Levels]:
        return list(self.records)

    @cached_property
    def _with_level(self) -> dict[tuple[str, str], set[int]]:
        """(factor, level) -> places of the configurations that have it."""
        found: dict[tuple[str, str], set[int]] = {
            (factor, level): set() for factor, levels in self.factors.items() for level in levels
        }
        for place, levels in enumerate(self._all):
            for factor, level in zip(self.factors, levels, strict=True):
                found[factor, level].add(place)
        return found

    def measured(self, where: Mapping[str, str], metric: str) -> Measured | None:
        """A metric of all configurations with these levels, averaged over the factors not named.

        A seed counts only where every one of those configurations has it; None where none does.
        """
        chosen = self.configurations(where)
        if not chosen:
            return None
        seeds = self.seeds_with(chosen, metric)
        return self._average(chosen, seeds, metric) if seeds else None

    def sides(self, wheres: Sequence[Mapping[str, str]], metric: str) -> Sides | None:
        """Configurations of several averages over the same other levels, and the seeds that all have.

        So a gap on one side biases none. Where dropping seeds would leave fewer than three, other levels that
        lack a number on any side are dropped from all instead; the text says what was left out. None where
        nothing is left.
        """
        named = [i for i, factor in enumerate(self.factors) if any(factor in where for where in wheres)]
        sides = []
        for where in wheres:
            rest: dict[Levels, list[Levels]] = {}
            for levels in self.configurations(where):
                rest.setdefault(tuple(v for i, v in enumerate(levels) if i not in named), []).append(levels)
            sides.append(rest)
        shared = [key for key in sides[0] if all(key in side for side in sides)]
        seeds_of = {
            key: self.seeds_with([levels for side in sides for levels in side[key]], metric) for key in shared
        }
        common = [s for s in self.seeds if all(s in seeds for seeds in seeds_of.values())]
        kept = shared
        if len(common) < min(MIN_SEEDS, len(self.seeds)):
            complete = [key for key in shared if len(seeds_of[key]) == len(self.seeds)]
            kept, common = (complete, self.seeds) if complete else (shared, common)
        total = len(set().union(*sides))
        left_out = "" if len(kept) == total else f"{len(kept)} of {total} combinations of the other factors"
        if not kept or not common:
            return None
        dropped = [key for key in shared if key not in kept]
        return Sides(
            chosen=[[levels for key in kept for levels in side[key]] for side in sides],
            dropped=[[levels for key in dropped for levels in side[key]] for side in sides],
            seeds=common,
            left_out=left_out,
        )

    def seeds_with(self, chosen: Sequence[Levels], metric: str) -> list[int]:
        """The seeds for which all these configurations have the number."""
        return [
            seed
            for seed in self.seeds
            if all(math.isfinite(self.value(levels, seed, metric)) for levels in chosen)
        ]

    def _average(self, chosen: Sequence[Levels], seeds: Sequence[int], metric: str) -> Measured:
        values = {s: float(np.mean([self.value(levels, s, metric) for levels in chosen])) for s in seeds}
        items_SD = self.items(chosen, seeds, metric)
        stderr, n = self._own_error(chosen, seeds, metric)
        share = self.is_share(metric)
        return Measured(values=values, items_SD=items_SD, stderr=stderr, num_items=n, share=share)

    def missing(self, where: Mapping[str, str], metric: str) -> list[str]:
        """Why there is no number, one line a configuration and seed that lacks one."""
        lines = []
        chosen = self.configurations(where)
        if not chosen:
            return [NOT_IN_SWEEP]
        for levels in chosen:
            for seed in self.seeds:
                record = self.records[levels].get(seed)
                if record is None:
                    lines.append(f"seed {seed}: no record")
                elif record.status != "ok":
                    lines.append(f"seed {seed}: {record.reason}")
                elif math.isnan(self.value(levels, seed, metric)):
                    stated = self._numbers[record.cell].get(metric)
                    why = "not measured" if stated is None else f"the value is {stated:g}"
                    lines.append(f"seed {seed}: {why}")
        return lines

    @cached_property
    def _numbers(self) -> dict[str, dict[str, float]]:
        """Cell id -> metric -> value, facts included."""
        found = {}
        for record in self.all_records():
            numbers = dict(facts(record))
            for m in record.data["metrics"]:
                value = m.get("value")
                numbers[metric_name(m)] = float("nan") if value is None else float(value)
            found[record.cell] = numbers
        return found

    def value(self, levels: Levels, seed: int, metric: str) -> float:
        """A number of one record; NaN where there is none, or one too large to count with."""
        record = self.records[levels].get(seed)
        if record is None or record.status != "ok":
            return math.nan
        stated = self._numbers[record.cell].get(metric, math.nan)
        return stated if abs(stated) <= LARGEST else math.nan

    def at(self, levels: Levels, seeds: Sequence[int], metric: str) -> Array:
        """A configuration's numbers by seed; NaN where there is none."""
        known = self._by_seed.setdefault((levels, metric), {})
        if not known:
            known.update({seed: self.value(levels, seed, metric) for seed in self.seeds})
        return np.array([known[seed] for seed in seeds])

    _by_seed: dict[tuple[Levels, str], dict[int, float]] = field(default_factory=dict)

    def diverged(self, levels: Levels) -> list[int]:
        """Seeds at which a configuration diverged."""
        return [seed for seed, record in self.records[levels].items() if record.status == "diverged"]

    def replicated(self, levels: Levels) -> bool:
        """Whether the seeds of a configuration are different runs."""
        if levels not in self._replicated:
            finished = [r.data for r in self.records[levels].values() if r.status == "ok"]
            self._replicated[levels] = replicated(finished)
        return self._replicated[levels]

    _replicated: dict[Levels, bool] = field(default_factory=dict)

    def sampled(self, metric: str) -> bool:
        """Whether a metric is a mean over items, and no size or count."""
        return self._num_items.get(metric, 0) > 0

    def num_items(self, metric: str) -> int:
        """The most items that a record averaged; 0 for a size or count."""
        return self._num_items.get(metric, 0)

    def declared(self, names: Iterable[str]) -> set[str]:
        """Full names of the metrics that are named and known here."""
        return {self.resolve(name) for name in names if self.knows(name)}

    @cached_property
    def shown(self) -> dict[str, list[str]]:
        """Task -> the items whose texts a report shows."""
        return shown_items(self.all_records())

    @cached_property
    def requests(self) -> dict[str, set[int]]:
        """Task -> how many answers its evaluations asked the model for."""
        found: dict[str, set[int]] = {}
        for record in self.all_records():
            for facts in record.data.get("facts", {}).values():
                for task, fact in (facts or {}).items():
                    if isinstance(fact, Mapping) and isinstance(fact.get("requests"), int):
                        found.setdefault(task, set()).add(fact["requests"])
        return found

    def is_share(self, metric: str) -> bool:
        """Whether a metric is a share of items: a mean over some, without a unit, all of it in [0, 1]."""
        if metric not in self._shares:
            values = [self.value(v, s, metric) for v, by_seed in self.records.items() for s in by_seed]
            inside = all(0 <= value <= 1 for value in values if math.isfinite(value))
            self._shares[metric] = inside and self.sampled(metric) and not self.metrics[metric].unit
        return self._shares[metric]

    _shares: dict[str, bool] = field(default_factory=dict)

    def resolution(self, metric: str) -> float:
        """The step between neighbouring values of a share of n items; 0 where values are no such shares."""
        if metric not in self._resolutions:
            n = self._num_items.get(metric, 0)
            values = [self.value(v, s, metric) for v, by_seed in self.records.items() for s in by_seed]
            shares = [v * n for v in values if math.isfinite(v)]
            whole = n > 0 and all(0 <= v <= n and abs(v - round(v)) < 1e-6 * max(1, n) for v in shares)
            self._resolutions[metric] = 1 / n if whole else 0.0
        return self._resolutions[metric]

    _resolutions: dict[str, float] = field(default_factory=dict)

    @cached_property
    def _num_items(self) -> dict[str, int]:
        """Metric -> the most items that a record averaged."""
        found: dict[str, int] = {}
        for record in self.all_records():
            for m in record.data["metrics"]:
                name = metric_name(m)
                found[name] = max(found.get(name, 0), int(m.get("n") or 0))
        return found

    def _own_error(
        self, chosen: Sequence[Levels], seeds: Sequence[int], metric: str
    ) -> tuple[float | None, int]:
        """The evaluator's standard error and number of items, for one configuration alone."""
        found = [self._metric(levels, seed, metric) for levels in chosen for seed in seeds]
        n = min((int(m.get("n") or 0) for m in found if m), default=0)
        errors = [m.get("stderr") for m in found if m]
        numbers = [float(e) for e in errors if isinstance(e, int | float)]
        usable = len(chosen) == 1 and numbers and len(numbers) == len(errors)
        return (float(np.mean(numbers)) if usable else None), n

    def _metric(self, levels: Levels, seed: int, metric: str) -> Mapping[str, Any] | None:
        for m in self.records[levels][seed].data["metrics"]:
            if metric_name(m) == metric:
                return dict(m)
        return None

    def items(self, chosen: Sequence[Levels], seeds: Sequence[int], metric: str) -> Array | None:
        """Mean over configurations of each item's value, seeds x items; None where they were not kept."""
        matrix = self._item_matrix(metric)
        if matrix is None:
            return None
        rows = [[matrix.row_of.get(self.records[levels][seed].cell) for levels in chosen] for seed in seeds]
        if any(row is None for line in rows for row in line):
            return None
        return np.asarray(matrix.values_RD[np.array(rows)].mean(axis=1))

    def documents(self, metric: str) -> list[str]:
        """The documents that a metric averages over, in the order of `items`; none where none were kept."""
        matrix = self._item_matrix(metric)
        return [] if matrix is None else matrix.docs

    def _item_matrix(self, metric: str) -> Items | None:
        """Per-item values of all records.

        A metric whose printed value is not the mean of its items (a ratio of sums) has none, so that no
        test speaks of another number than the one shown.
        """
        if metric not in self._matrices:
            ended = [record for record in self.all_records() if record.status == "ok"]
            printed = [(record, self._numbers[record.cell].get(metric, math.nan)) for record in ended]
            self._matrices[metric] = item_matrix([p for p in printed if abs(p[1]) <= LARGEST], metric)
        return self._matrices[metric]

    _matrices: dict[str, Items | None] = field(default_factory=dict)


def column_of(factor: str, columns: Collection[str]) -> str:
    """The column of a factor's levels in a table that has these columns besides."""
    return f"factor.{factor}" if factor in columns else factor


def metric_name(m: Mapping[str, Any]) -> str:
    return f"{m['evaluator']}.{m['task']}.{m['metric']}"


def facts(record: Record) -> dict[str, float]:
    """Numeric facts as `<stage>.<fact>`; those of an evaluation as `evaluate.<evaluator>.<task>.<fact>`."""
    return {
        path: float(value)
        for path, value in flatten(record.data.get("facts", {}))
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
