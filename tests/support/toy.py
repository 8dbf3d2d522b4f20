"""Toy cells and plans: a sweep without models, whose children are real processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from harness.compose import Experiment
from harness.plan import graph as graph_module
from harness.plan.graph import Graph
from harness.plan.plan import Plan, PlannedCell
from harness.registry.known import Registry
from harness.store import Store

from toy_stages import STAGES, Toy  # isort: skip


@dataclass(frozen=True)
class ToyCell:
    """Stands for harness.compose.Cell."""

    options: dict[str, Any]
    seed: int = 0
    base_seed: int = 0
    seed_from: str | None = "beta"
    stages: tuple[str, ...] = ("alpha", "beta", "gamma")
    device: str = "cpu"
    offline: bool = True
    overrides: tuple[str, ...] = ()
    trackers: tuple[Any, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return "-".join([*(f"{k}.{v}" for k, v in self.options.items()), str(self.seed)]) or "cell"

    def model_path(self) -> str | None:
        return None

    def spec(self) -> None:
        return None

    def choice(self, axis: str, *, stage: str | None = None) -> None:
        return None

    def choices(self, axis: str, *, stage: str | None = None) -> tuple[Any, ...]:
        return self.trackers if axis == "tracker" else ()

    def choices_of(self, stage: str) -> dict[str, Any]:
        return {}

    def stage_config(self, stage: str) -> Toy.Config:
        own = {k.partition(".")[2]: v for k, v in self.options.items() if k.startswith(f"{stage}.")}
        return Toy.Config(**own)


@contextmanager
def toy_stages() -> Iterator[None]:
    """The graph sees toy stages instead of the chain's."""
    with (
        mock.patch.object(Registry, "stage", lambda self, name: STAGES[name.partition("@")[0]]),
        mock.patch.object(graph_module, "stage_axes", return_value=()),
    ):
        yield


def toy_plan(root: Path, cells: Sequence[ToyCell], *, name: str = "toy") -> Plan:
    """A plan over toy cells."""
    with toy_stages():
        graph = Graph(Store(root))
        planned = [
            PlannedCell(
                cell=cell,  # type: ignore[arg-type]
                levels={k: str(v) for k, v in cell.options.items()},
                seed=cell.seed,
                keys=tuple(graph.add(cell)),  # type: ignore[arg-type]
            )
            for cell in cells
        ]
    return Plan(
        name=name, arguments=(), experiment=Experiment(name=name), factors=[], cells=planned, graph=graph
    )


def grid(levels: int, seeds: int, **options: Any) -> list[ToyCell]:
    """Cells that differ in beta's number and the seed."""
    return [
        ToyCell({"beta.number": number, **options}, seed=seed)
        for number in range(2, 2 + levels)
        for seed in range(seeds)
    ]


def executions(root: Path, event: str = "finished") -> list[str]:
    """Keys of stages that an event was logged for, each as often as it happened."""
    file = root / "executions.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split()[3] for line in lines if line.split()[0] == event]


class Silent:
    """A view that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps = 0

    def started(self, node: Any) -> None: ...
    def step(self, node: Any, step: int, facts: dict[str, float]) -> None:
        self.steps += 1

    def finished(self, node: Any, outcome: Any, seconds: float) -> None: ...
    def cell_finished(self, cell: Any, outcome: Any, *, reused: bool) -> None: ...
    def tick(self, *, waiting: int, elsewhere: int) -> None: ...
    def say(self, text: str) -> None:
        self.said.append(text)
