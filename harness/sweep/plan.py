"""The plan of a sweep: its cells, the shared stage graph, what is in the store, and what cannot work."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compose import Cell, Experiment, load
from harness.compose.schema import EXPERIMENT_KEYS
from harness.compose.typed import instance
from harness.errors import ConfigError
from harness.method import Problem
from harness.nodes import plain
from harness.store import Store
from harness.store.records import record_dir
from harness.sweep.assemble import Assembler, Load
from harness.sweep.cells import CellPlan, Factor, cells, chosen_labels, factors, request, tuned_keys
from harness.sweep.grammar import label_text
from harness.sweep.graph import Graph, Node
from harness.sweep.resources import Need

if TYPE_CHECKING:
    from harness.sweep.tune import Tuning


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell with its place in the table, the artifacts it asks for, and why it cannot run, if so."""

    cell: Cell
    levels: dict[str, str]
    seed: int
    keys: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    tuned: dict[str, Any] | None = None
    """How its values were tuned, for the record; None without a `tune:` block."""

    @property
    def refused(self) -> str:
        """The reason why it cannot run; empty where it can."""
        return "; ".join(str(problem) for problem in self.problems if problem.fatal)


@dataclass(kw_only=True)
class Plan:
    """Everything a worker needs; picklable."""

    name: str
    """Of the sweep; its records stand under it."""
    arguments: tuple[str, ...]
    experiment: Experiment
    factors: list[Factor]
    cells: list[PlannedCell]
    graph: Graph
    notes: list[str] = field(default_factory=list)
    """What a reader of the plan should know, e.g. which levels `harness run` took."""
    tuning: Tuning | None = None
    """The trials of a `tune:` block; until they have ended there are no cells: their keys are not known."""

    @property
    def first(self) -> Plan:
        """What runs first: the trials of its tuning while some are open, else the sweep itself."""
        return self if self.tuning is None or self.tuning.settled else self.tuning.trials()

    def asked(self) -> int:
        """Stages over all cells, shared ones counted each time."""
        return sum(len(cell.keys) for cell in self.cells if not cell.refused)

    def wanted(self) -> list[str]:
        """Keys that some cell asks for, with all they rest on, inputs first, each once."""
        asked = {key for cell in self.cells if not cell.refused for key in cell.keys}
        for key in tuple(asked):
            asked.update(self.graph.ancestors(key))
        return [key for key in self.graph.nodes if key in asked]

    def missing(self) -> list[Node]:
        """Nodes to run, inputs first."""
        found = self.graph.store.find
        return [self.graph.nodes[key] for key in self.wanted() if found(key) is None]

    def summary(self) -> str:
        """One line: `57 cells, 171 stages asked, 64 to run, 20 in the store`."""
        wanted, missing = self.wanted(), len(self.missing())
        refused = sum(1 for cell in self.cells if cell.refused)
        line = (
            f"{_count(len(self.cells), 'cell')}, {_count(self.asked(), 'stage')} asked, {missing} to run, "
            f"{len(wanted) - missing} in the store"
        )
        return line + (f", {_count(refused, 'cell')} that cannot work" if refused else "")

    def experiment_node(self) -> dict[str, Any]:
        """The experiment as records state it: each factor's labels with the overrides they stand for."""
        node: dict[str, Any] = plain(asdict(self.experiment))
        node["name"] = self.name
        node["baseline"] = {str(name): label_text(v) for name, v in self.experiment.baseline.items()}
        node["factors"] = {
            factor.name: {v.label: dict(text.split("=", 1) for text in v.overrides) for v in factor.levels}
            for factor in self.factors
        }
        if self.experiment.tune:
            node["tune"]["options"] = sorted(tuned_keys(self.experiment.tune))
        return node


def make_plan(
    arguments: Sequence[str], *, store: Store, single: bool = False, places_nodes: bool = False
) -> Plan:
    """The plan of a command line; `single` takes first levels and one seed, as `harness run` does.

    `places_nodes` says that whoever runs it can give a stage several nodes; else such cells are refused.

    Every cell is composed and validated here, before anything runs.
    Raises: ConfigError, UnknownNameError, PluginError, naming what is wrong and what works
    """
    asked = request(arguments)
    if single and asked.swept:
        keys = ", ".join(item.key for item in asked.swept)
        raise ConfigError(f"harness run takes one value of {keys}; use `harness sweep` to cross several")
    composed = functools.cache(load)  # often the experiment, the base and its cells are one composition
    declared = _experiment(asked.base, composed)
    labels = chosen_labels(declared, asked) if declared.factors else set()
    base = tuple(text for text in asked.base if text not in labels)
    node, choices = composed(base)
    experiment = _from_node(node, choices.get("experiment"))
    found = factors(experiment, asked)
    seeds = _seeds(experiment, asked, int(node.seed))
    planned = cells(experiment, found, seeds=seeds, stages=list(node.stages))
    if not planned:
        raise ConfigError("the sweep has no cells: `exclude` leaves out all of them")
    notes = _taken(found, seeds) if single else []
    planned = planned[:1] if single else planned
    assembler = Assembler(tuple(text for text in base if not text.startswith("seed=")), load=composed)
    assembler.foresee(item.overrides for item in planned)
    graph = Graph(store, places_nodes=places_nodes)
    made = Plan(
        name=experiment.name or "_x_".join(f.name.replace("/", ".") for f in found) or "run",
        arguments=tuple(arguments),
        experiment=experiment,
        factors=found,
        cells=[],
        graph=graph,
        notes=notes,
    )
    if experiment.tune:
        from harness.sweep.tune import make_tuning

        fixed = {item.key for item in asked.plain}
        made.tuning = make_tuning(made, planned=planned, fixed=fixed, assembler=assembler)
    if made.tuning is None:
        made.cells = list(place(assembler, graph, planned).values())
        duplicates = len(planned) - len(made.cells)
        if duplicates:
            notes.append(f"{_count(duplicates, 'cell')} the same as another, left out")
    elif made.tuning.settled:
        made.cells = made.tuning.cells()
    graph.save_caches()
    return made


def place(assembler: Assembler, graph: Graph, planned: Sequence[CellPlan]) -> dict[str, PlannedCell]:
    """Compose cells, put them into the graph, and note what speaks against them; equal ones once, by id.

    Raises: ConfigError, PluginError
    """
    seen: dict[str, PlannedCell] = {}
    for item in planned:
        cell = assembler.cell(item.overrides)
        if cell.id not in seen:
            asks = tuple(graph.add(cell))
            seen[cell.id] = PlannedCell(cell=cell, levels=item.levels, seed=item.seed, keys=asks)
    _check(graph, seen)
    return seen


def _check(graph: Graph, cells: dict[str, PlannedCell]) -> None:
    """Note the problems of every cell; one whose stages are all in the store has been proven to work."""
    from harness.problems import problems

    for name, planned in cells.items():
        if any(graph.store.find(key) is None for key in planned.keys):
            found = (*problems(planned.cell), *_unplaced(graph, planned))
            cells[name] = replace(planned, problems=found)


def _unplaced(graph: Graph, planned: PlannedCell) -> Iterator[Problem]:
    """That a cell wants several nodes, where nobody can place it on them."""
    needs = [Need.of(graph.nodes[key]) for key in planned.keys]
    largest = max(needs, default=Need())
    if largest.nodes > 1 and not graph.places_nodes and "WORLD_SIZE" not in os.environ:
        yield Problem(
            where="parallelism.num_nodes",
            message=f"{largest.nodes} nodes need a launcher that can place them; run the sweep with "
            f"hydra/launcher=submitit_slurm, or use parallelism.num_nodes=1 "
            f"parallelism.num_processes={largest.nodes * largest.processes}",
        )


def directory(plan: Plan, cell: PlannedCell) -> Path:
    """Where a cell's record stands."""
    return record_dir(plan.graph.store.root, sweep=plan.name, cell=cell.cell.id)


def _experiment(base: Sequence[str], load: Load) -> Experiment:
    """The experiment that a command line names, before its levels are chosen."""
    own = tuple(text for text in base if text.partition("=")[0].lstrip("+") == "experiment")
    node, choices = load(own)
    return _from_node(node, choices.get("experiment"))


def _from_node(node: Any, name: str | None) -> Experiment:
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(node, resolve=True)
    assert isinstance(raw, dict)
    raw["name"] = raw["name"] or name or ""
    return instance(Experiment, {key: raw[key] for key in EXPERIMENT_KEYS}, where="experiment")


def _seeds(experiment: Experiment, asked: Any, given: int) -> list[int]:
    for item in asked.swept:
        if item.key == "seed":
            wrong = [value for value in item.values if not value.lstrip("-").isdigit()]
            if wrong:
                raise ConfigError(f"seed={wrong[0]}: a seed is an integer")
            return [int(value) for value in item.values]
    if any(item.key == "seed" for item in asked.plain):
        return [given]
    return list(experiment.seeds) or [given]


def _taken(found: list[Factor], seeds: list[int]) -> list[str]:
    """A note on which of several cells `harness run` takes."""
    chosen = [f"{f.name}={f.levels[0].label}" for f in found if len(f.levels) > 1]
    if len(seeds) > 1:
        chosen.append(f"seed={seeds[0]}")
    return [f"one cell of several: {', '.join(chosen)}; `harness sweep` runs all"] if chosen else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
