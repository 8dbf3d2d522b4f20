"""`tune:` blocks: the same number of trials for every method, chosen by validation data, inside the sweep.

A trial is a cell of the sweep with other values, measured on the validation split alone; its stages are
artifacts like any, so the best trial's model is the reported one. What a trial found stands in its record
(under `<sweep>.tune`), from which the next trials follow: killed and started again, the trials are the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from harness.axes.evaluator import Evaluator
from harness.compose import Cell, Experiment
from harness.compose.typed import instance
from harness.errors import ConfigError, StoreError, UnknownNameError
from harness.method import Problem
from harness.plan.assemble import Assembler
from harness.plan.cells import CellPlan, Factor, Level
from harness.plan.grammar import label_text, parse, value_text
from harness.plan.graph import Graph
from harness.plan.placing import place
from harness.plan.plan import Plan, PlannedCell
from harness.plan.space import Dimension, Point, dimension, drawn, grid, is_number, tpe
from harness.registry.known import registry
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
            (cell,) = place(self.assembler, self.graph, [_with(item, point)]).values()
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
        item = _with(method.base, point)
        overrides = (*item.overrides, f"evaluator.{evaluator}.split={SPLIT}")
        levels = {**method.base.levels, "trial": str(number)}
        item = replace(item, overrides=overrides, levels=levels)
        (cell,) = place(self.assembler, self.graph, [item]).values()
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


def make_tuning(
    sweep: Plan, *, planned: list[CellPlan], fixed: Collection[str], assembler: Assembler
) -> Tuning | None:
    """The tuning that a sweep's `tune:` block asks for; None where the command line fixes it all.

    `planned` are the sweep's cells, `fixed` the options that the command line sets.
    Raises: ConfigError, UnknownNameError for a block that cannot work, before anything runs
    """
    experiment, factors = sweep.experiment, sweep.factors
    block = instance(Tune, experiment.tune, where="tune")
    methods = []
    for levels, base in _methods(block, experiment, factors, planned):
        spaces = _spaces(block, levels, factors)
        _refuse_factors(base, spaces)
        cell = assembler.cell(base.overrides)
        dims = tuple(
            dimension(path, spec, where="tune.space", integer=_is_integer(cell, path))
            for path, spec in spaces.items()
            if path not in fixed
        )
        methods.append(Tuned(levels=levels, base=base, dimensions=dims))
    if not any(method.dimensions for method in methods):
        return None
    made = Tuning(
        name=sweep.name,
        block=replace(block, trials=_trials(block, methods)),
        metric=_metric(block, assembler.cell(planned[0].overrides)),
        experiment=experiment,
        factors=factors,
        planned=planned,
        assembler=assembler,
        graph=sweep.graph,
        methods=methods,
    )
    for method in methods:
        for share in (0.0, 1.0):
            _with_checked(made, method, {dim.path: dim.at(share) for dim in method.dimensions})
    made.look()
    return made


def _methods(
    block: Tune, experiment: Experiment, factors: Sequence[Factor], planned: Sequence[CellPlan]
) -> list[tuple[dict[str, str], CellPlan]]:
    """Each method's levels and the cell its trials vary: other factors at the baseline, the first seed."""
    names = [factor.name for factor in factors]
    for name in [*(block.by or ()), *block.methods]:
        if name not in names:
            raise UnknownNameError(what="factor (in tune)", name=name, known=names)
    by = names if block.by is None else block.by
    baseline = {name: label_text(level) for name, level in experiment.baseline.items()}
    found: dict[tuple[str, ...], CellPlan] = {}
    for item in planned:
        key = tuple(item.levels[name] for name in by if name in item.levels)
        at_baseline = all(item.levels.get(f) == v for f, v in baseline.items() if f not in by)
        known = found.get(key)
        if known is None or (at_baseline and not _is_at(known, baseline, by)):
            found[key] = item
    return [({f: item.levels[f] for f in by if f in item.levels}, item) for item in found.values()]


def _is_at(item: CellPlan, baseline: Mapping[str, str], by: Collection[str]) -> bool:
    return all(item.levels.get(f) == label for f, label in baseline.items() if f not in by)


def _spaces(block: Tune, levels: Mapping[str, str], factors: Sequence[Factor]) -> dict[str, Any]:
    """The ranges of one method: those of all, replaced by its own."""
    spaces = dict(block.space)
    for factor in factors:
        for label, own in block.methods.get(factor.name, {}).items():
            factor.level(label)  # refuses a level that does not exist
            if levels.get(factor.name) == label_text(label):
                spaces |= own
    if not spaces:
        raise ConfigError("tune.space is empty; give e.g. {pretrain.learning_rate: {low: 1e-4, high: 1e-2}}")
    return {path: spec for path, spec in spaces.items() if spec is not None}


def _refuse_factors(base: CellPlan, spaces: Mapping[str, Any]) -> None:
    """No option may be set by a factor's level and tuned as well."""
    for item in parse(base.overrides):
        if item.key in spaces:
            raise ConfigError(
                f"tune.space.{item.key} is tuned and also set by a factor ({item.overrides()[0]}); drop one"
            )


def _trials(block: Tune, methods: Sequence[Tuned]) -> int:
    """How many trials every method gets.

    Raises: ConfigError where they are not stated, or not the same for all
    """
    if block.trials < 0 or (not block.trials and block.search is not Search.grid):
        raise ConfigError(f"tune.trials={block.trials} must be 1 or more: every method gets as many")
    sizes = {}
    for method in methods:
        if block.trials or any(not dim.values for dim in method.dimensions):
            if not block.trials:
                raise ConfigError(
                    "tune.trials must be given: a grid over a range does not say how fine it is"
                )
            if block.search is Search.grid and method.dimensions:
                grid(method.dimensions, trials=block.trials, where=method.name)
            continue
        sizes[method.name] = math.prod(len(dim.values) for dim in method.dimensions)
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"tune: every method gets the same number of trials, but the grids have {sizes}")
    return block.trials or next(iter(sizes.values()))


def _metric(block: Tune, cell: Cell) -> str:
    """The metric in full; its evaluator must be chosen, and report another split.

    Raises: UnknownNameError, ConfigError
    """
    if not any(cell.makes(stage) == "evaluation" for stage in cell.stages):
        raise ConfigError(f"tune.metric={block.metric} needs the stage evaluate; add it to `stages`")
    chosen = {choice.method.name: choice for choice in cell.choices("evaluator")}
    known: dict[str, str] = {}
    for name, method in registry().methods("evaluator").items():
        assert issubclass(method, Evaluator)
        config = chosen[name].config if name in chosen else method.Config()
        for task in method.tasks(config) if method.on_validation else ():
            known |= {f"{name}.{task}.{metric}": name for metric in sorted(method.on_validation)}
    fits = [full for full in known if f".{full}".endswith(f".{block.metric}")]
    if not fits:
        raise UnknownNameError(
            what=f"metric measured on the {SPLIT} split (tune.metric)", name=block.metric, known=known
        )
    if len(fits) > 1:
        raise ConfigError(f"tune.metric={block.metric} fits {', '.join(fits)}; name one of them in full")
    (full,) = fits
    if known[full] not in chosen:
        raise ConfigError(
            f"tune.metric={block.metric} is not measured: evaluator={known[full]} is not chosen; "
            f"choose it too, evaluator=[{','.join([*chosen, known[full]])}]"
        )
    if chosen[known[full]].config.split == SPLIT:
        raise ConfigError(
            f"evaluator.{known[full]}.split={SPLIT} would report what tune chooses by; report another split"
        )
    return full


def _is_integer(cell: Cell, path: str) -> bool:
    """Whether an option holds an integer, so that a range of it takes integers alone."""
    node: Any = cell.config
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return isinstance(node, int) and not isinstance(node, bool)


def _with(item: CellPlan, point: Mapping[str, Any]) -> CellPlan:
    """A cell at a point."""
    return replace(
        item, overrides=(*item.overrides, *(f"{path}={value_text(v)}" for path, v in point.items()))
    )


def _with_checked(made: Tuning, method: Tuned, point: Point) -> None:
    """Compose a method's cell at a point, so that a path or value that cannot be is refused now."""
    try:
        made.assembler.cell(_with(method.base, point).overrides)
    except ConfigError as error:
        raise ConfigError(f"tune.space of {method.name}: {error}") from error


def _failed(method: Tuned) -> Problem:
    """Why a method without any good trial has no number."""
    reasons = sorted({f"{t.status}{': ' if t.reason else ''}{t.reason}" for t in method.trials})
    return Problem(
        where="tune",
        message=f"none of {len(method.trials)} trials of {method.name} has a value: {reasons[0]}",
    )
