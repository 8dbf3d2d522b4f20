"""The plan of a sweep: its cells, the shared stage graph, what is in the store, and what cannot work."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compose import Cell, Experiment
from harness.method import Problem
from harness.nodes import plain
from harness.plan.cells import tuned_keys
from harness.plan.factors import Factor
from harness.plan.grammar import label_text
from harness.plan.graph import Graph
from harness.plan.node import Node
from harness.store.records import record_dir

if TYPE_CHECKING:
    from harness.plan.trials import Tuning


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
            f"{counted(len(self.cells), 'cell')}, {counted(self.asked(), 'stage')} asked, {missing} to run, "
            f"{len(wanted) - missing} in the store"
        )
        return line + (f", {counted(refused, 'cell')} that cannot work" if refused else "")

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


def directory(plan: Plan, cell: PlannedCell) -> Path:
    """Where a cell's record stands."""
    return record_dir(plan.graph.store.root, sweep=plan.name, cell=cell.cell.id)


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
