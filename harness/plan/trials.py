"""The trials of a sweep: cells with other values, what came of them, and which follows.

A trial is a cell of the sweep with other values, measured on the validation split alone; its stages are
artifacts like any, so the best trial's model is the reported one. What a trial found stands in its record
(under `<sweep>.tune`), from which the next trials follow: killed and started again, the trials are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from harness.compose import Experiment
from harness.errors import ConfigError, StoreError
from harness.method import Problem
from harness.plan.assemble import Assembler
from harness.plan.cells import CellPlan
from harness.plan.factors import Factor, Level
from harness.plan.grammar import value_text
from harness.plan.graph import Graph
from harness.plan.placing import place
from harness.plan.plan import Plan, PlannedCell
from harness.plan.space import Dimension, Point, drawn, grid, is_number, tpe
from harness.store.records import TRIALS, read_record, record_dir

SPLIT = "validation"


class Search(Enum):
    """How the points of a search space are chosen."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


@dataclass(frozen=True, kw_only=True)
class Tune:
    """The `tune:` block of an experiment."""

    trials: int = 0
    """Trials of every method; may be left out for a grid of lists."""
    search: Search = Search.random
    """grid | random | tpe (Optuna's; each trial waits for those before it)."""
    metric: str = "bits_per_byte"
    """What decides, by the last parts of `<evaluator>.<task>.<metric>`; measured on the validation split."""
    by: list[str] | None = None
    """Factors whose levels are the methods; null = all. Other factors stand at the baseline in trials."""
    space: dict[str, Any] = field(default_factory=dict)
    """Option -> [values] or {low, high, log}, for every method."""
    methods: dict[str, Any] = field(default_factory=dict)
    """Factor -> level -> option -> values, in place of those in `space`; null leaves an option alone."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a method, and what came of it."""

    number: int
    point: Point
    cell: PlannedCell
    status: str = ""
    """Empty while it is open, else its cell's outcome."""
    reason: str = ""
    value: float | None = None
    higher_is_better: bool = False

    @property
    def loss(self) -> float | None:
        """What is minimised; None without a result."""
        if self.value is None:
            return None
        return -self.value if self.higher_is_better else self.value


@dataclass(kw_only=True)
class Tuned:
    """A method and its trials."""

    levels: dict[str, str]
    """Of the factors in `by`."""
    base: CellPlan
    """The cell that its trials vary."""
    dimensions: tuple[Dimension, ...]
    trials: list[Trial] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people: `optimizer=lion`."""
        return " ".join(f"{factor}={label}" for factor, label in self.levels.items()) or "the cell"

    def best(self) -> Trial | None:
        """The trial with the least loss, the first of equals; None where none has a value."""
        ended = [trial for trial in self.trials if trial.loss is not None]
        return min(ended, key=lambda trial: trial.loss or 0.0, default=None)

    def edges(self) -> list[str]:
        """Options whose best value has no tried value beyond it, so that the optimum may lie outside."""
        best = self.best()
        found = []
        for dim in self.dimensions if best is not None else ():
            tried = [trial.point[dim.path] for trial in self.trials]
            if not dim.ordered or len(set(tried)) < 2:
                continue
            for word, extreme in (("lowest", min(tried)), ("highest", max(tried))):
                if best is not None and best.point[dim.path] == extreme:
                    found.append(f"{dim.path}={extreme:.4g} is the {word} of {len(tried)} tried")
        return found


@dataclass(kw_only=True)
class Tuning:
    """All trials of a sweep, as far as they are known."""

    name: str
    block: Tune
    metric: str
    """In full: `<evaluator>.<task>.<metric>`."""
    experiment: Experiment
    factors: list[Factor]
    planned: list[CellPlan]
    """The cells of the sweep, which wait for the trials."""
    assembler: Assembler
    graph: Graph
    methods: list[Tuned]

    @property
    def settled(self) -> bool:
        """Whether every trial of every method has ended."""
        return all(
            len(method.trials) == self.block.trials and all(trial.status for trial in method.trials)
            for method in self.methods
        )

    def look(self) -> None:
        """Read what trials found, and add those that follow."""
        for method in self.methods:
            method.trials = [self._result(trial) for trial in method.trials]
            while len(method.trials) < self.block.trials:
                point = self._next(method)
                if point is None:
                    break
                number = len(method.trials) + 1
                method.trials.append(
                    self._result(Trial(number=number, point=point, cell=self._cell(method, number, point)))
                )

    def trials(self) -> Plan:
        """The plan of all trials known by now."""
        cells = {trial.cell.cell.id: trial.cell for method in self.methods for trial in method.trials}
        numbers = tuple(Level(str(i + 1), ()) for i in range(self.block.trials))
        return Plan(
            name=self.name + TRIALS,
            arguments=(),
            experiment=replace(self.experiment, baseline={}, claims=[]),
            factors=[*self.factors, Factor("trial", numbers)],
            cells=list(cells.values()),
            graph=self.graph,
        )

    def cells(self) -> list[PlannedCell]:
        """The sweep's cells with the best values of their method; refused where no trial ended well."""
        assert self.settled
        placed: dict[str, PlannedCell] = {}
        for item in self.planned:
            method = self._method(item.levels)
            best = method.best()
            point = best.point if best is not None else {}
            (cell,) = place(self.assembler, self.graph, [with_point(item, point)]).values()
            problems = () if best is not None else (_failed(method),)
            placed.setdefault(
                cell.cell.id, replace(cell, tuned=self._account(method), problems=(*cell.problems, *problems))
            )
        return list(placed.values())

    def describe(self) -> dict[str, Any]:
        """As JSON: the methods, their ranges, their trials by now, and what waits for them."""
        methods = [
            {
                "levels": method.levels,
                "space": {dim.path: dim.text() for dim in method.dimensions},
                **self._account(method),
            }
            for method in self.methods
        ]
        return {"methods": methods, "pending": 0 if self.settled else len(self.planned)}

    def summary(self) -> str:
        """One line: `2 methods x 4 trials (random), by ... on the validation split: 3 of 8 trials done`."""
        done = sum(bool(trial.status) for method in self.methods for trial in method.trials)
        return (
            f"tune: {len(self.methods)} methods x {self.block.trials} trials ({self.block.search.value}), by "
            f"{self.metric} on the {SPLIT} split: {done} of {len(self.methods) * self.block.trials} done"
        )

    def _method(self, levels: Mapping[str, str]) -> Tuned:
        return next(m for m in self.methods if all(levels[f] == label for f, label in m.levels.items()))

    def _next(self, method: Tuned) -> Point | None:
        """The next point of a method; None where it depends on results that are not there yet."""
        done, total, where = len(method.trials), self.block.trials, method.name
        if not method.dimensions:
            return {}
        if self.block.search is Search.grid:
            return grid(method.dimensions, trials=total, where=where)[done]
        if self.block.search is Search.random:
            return drawn(method.dimensions, trials=total, seed=method.base.seed)[done]
        if any(not trial.status for trial in method.trials):
            return None
        told = [(trial.point, trial.loss) for trial in method.trials]
        return tpe(method.dimensions, trials=total, seed=method.base.seed, told=told)

    def _cell(self, method: Tuned, number: int, point: Point) -> PlannedCell:
        evaluator, task, _ = self.metric.split(".")
        item = with_point(method.base, point)
        overrides = (*item.overrides, f"evaluator.{evaluator}.split={SPLIT}")
        levels = {**method.base.levels, "trial": str(number)}
        item = replace(item, overrides=overrides, levels=levels)
        (cell,) = place(self.assembler, self.graph, [item]).values()
        if not cell.keys:
            return cell  # it cannot be put together, and says why
        nodes = self.graph.nodes
        (last,) = (k for k in cell.keys if nodes[k].part == f"{evaluator}.{task}")
        needed = {*self.graph.ancestors(last), last}
        return replace(cell, keys=tuple(key for key in cell.keys if key in needed))

    def _result(self, trial: Trial) -> Trial:
        """A trial with what its record says, where there is one of exactly these stages."""
        try:
            record = read_record(
                record_dir(self.graph.store.root, sweep=self.name + TRIALS, cell=trial.cell.cell.id)
            )
        except StoreError:
            return replace(trial, status="", reason="", value=None)
        if [stage["key"] for stage in record["stages"]] != list(trial.cell.keys):
            return replace(trial, status="", reason="", value=None)
        outcome = record["outcome"]
        if outcome["status"] != "ok":
            return replace(trial, status=outcome["status"], reason=outcome["reason"], value=None)
        for metric in record["metrics"]:
            if f"{metric['evaluator']}.{metric['task']}.{metric['metric']}" == self.metric:
                value = metric["value"] if is_number(metric["value"]) else None
                if metric.get("higher_is_better", True) is None:
                    raise ConfigError(f"tune.metric={self.block.metric} has no better end")
                return replace(
                    trial,
                    status="ok",
                    value=value,
                    higher_is_better=metric.get("higher_is_better", True),
                    reason="",
                )
        raise ConfigError(f"tune.metric={self.block.metric}: {self.metric} was not among what was measured")

    def _account(self, method: Tuned) -> dict[str, Any]:
        """What a record says of the tuning of its cell."""
        best = method.best()
        return {
            "search": self.block.search.value,
            "metric": self.metric,
            "split": SPLIT,
            "seed": method.base.seed,
            "chosen": None if best is None else best.point,
            "value": None if best is None else best.value,
            "edge": method.edges(),
            "trials": [
                {
                    "trial": trial.number,
                    "cell": trial.cell.cell.id,
                    "point": trial.point,
                    "status": trial.status or "pending",
                    "value": trial.value,
                }
                for trial in method.trials
            ],
        }


def with_point(item: CellPlan, point: Mapping[str, Any]) -> CellPlan:
    """A cell at a point."""
    return replace(
        item, overrides=(*item.overrides, *(f"{path}={value_text(v)}" for path, v in point.items()))
    )


def _failed(method: Tuned) -> Problem:
    """Why a method without any good trial has no number."""
    reasons = sorted({f"{t.status}{': ' if t.reason else ''}{t.reason}" for t in method.trials})
    return Problem(
        where="tune",
        message=f"none of {len(method.trials)} trials of {method.name} has a value: {reasons[0]}",
    )
