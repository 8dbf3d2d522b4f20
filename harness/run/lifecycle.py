"""Lifecycle hooks of a cell: observers of plugins and the cell's trackers; a failing one is noted.

One that finds a disk full pauses the sweep, as everything does that does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.axes.tracker import Tracker
from harness.errors import StoreFullError
from harness.method import Choice
from harness.plan.plan import Plan, PlannedCell, directory
from harness.registry.known import registry
from harness.run.execute import STEPS, read_steps
from harness.run.patience import NoAnswerError, within
from harness.run.provenance import provenance
from harness.store.files import full_text, is_disk_full
from harness.store.records import sweep_dir

PATIENCE = 120.0
"""Seconds that an observer may take over one event, connecting to its server included."""
PATIENCE_OF_REPORTS = 600.0
"""Seconds that a tracker may take over a report, whose files it may send."""


class Session:
    """One cell's observers, from its first stage to its record.

    State: `notes` says of each tracker that failed why; it hears nothing more of this cell. What did not
        answer in time stands in `hung` and is asked by no later cell of this process either
    """

    def __init__(
        self,
        plan: Plan,
        cell: PlannedCell,
        *,
        started: float,
        warn: Callable[[str], None],
        hung: dict[str, str],
    ) -> None:
        folder = directory(plan, cell)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = {
            "cell": cell.cell.id,
            "config": cell.cell.config,
            "sweep": plan.name,
            "levels": cell.levels,
            "seed": cell.seed,
            "overrides": list(cell.cell.overrides),
            "provenance": provenance(started),
            "directory": str(folder),
        }
        self.notes: dict[str, str] = {}
        self._warn = warn
        self._plan = plan
        self._cell = cell
        self._told: set[str] = set()
        self._steps: dict[str, int] = {}
        self._trackers: dict[str, Tracker] = {}
        self._hung = hung
        for choice in cell.cell.choices("tracker"):
            self._guard(choice.method.name, partial(self._add, choice))
        self._each("harness_run_started", "run_started", run=self.run)

    def step(self, key: str, step: int, facts: dict[str, float]) -> None:
        """A logging step, live; one already told (before a resume) is left out."""
        if step > self._steps.get(key, -1):
            self._steps[key] = step
            stage = self._plan.graph.nodes[key].stage
            self._each(
                "harness_training_step", "training_step", run=self.run, stage=stage, step=step, facts=facts
            )

    def finish(self, record: dict[str, Any]) -> None:
        """Everything not told yet, in the order of the stages, and then the record."""
        for key, entry in zip(self._cell.keys, record["stages"], strict=True):
            self.stage_finished(key, reused=entry["reused"])
        self._each("harness_cell_finished", "cell_finished", run=self.run, record=record)

    def stage_finished(self, key: str, *, reused: bool) -> None:
        """A stage's artifact is in the store; steps that were not seen live are told first."""
        artifact = self._plan.graph.store.find(key)
        if artifact is None or key in self._told:
            return
        self._told.add(key)
        for step, seen in read_steps(artifact.path / STEPS):
            self.step(key, step, seen)
        facts = {**artifact.facts, "reused": reused, "seconds": artifact.meta.get("seconds")}
        part = artifact.meta.get("part", "")
        stage = f"{artifact.stage}.{part}" if part else artifact.stage
        self._each("harness_stage_finished", "stage_finished", run=self.run, stage=stage, facts=facts)

    def _add(self, choice: Choice) -> None:
        self._trackers[choice.method.name] = choice.build()

    def _each(self, hook: str, method: str, **arguments: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guard(name, partial(getattr(tracker, method), **arguments))
        self._guard("plugin hooks", partial(getattr(registry().hook, hook), **arguments))

    def _guard(self, name: str, call: Callable[[], Any]) -> None:
        """Run an observer; what it raises becomes a note of the record, never the cell's outcome."""
        if name in self._hung:
            self.notes.setdefault(name, f"not told of this cell: {self._hung[name]}")
            self._trackers.pop(name, None)
            return
        try:
            with within(PATIENCE):
                call()
        except (Exception, SystemExit) as error:  # a client that gives up may end its process
            if is_disk_full(error):
                raise StoreFullError(f"tracker {name}: {full_text(error)}") from error
            self._trackers.pop(name, None)
            if isinstance(error, NoAnswerError):
                self._hung[name] = str(error)
            if name not in self.notes:
                self.notes[name] = f"{type(error).__name__}: {error}"
                self._warn(f"tracker {name} failed and hears nothing more of this cell: {error}")


def tell_report(plan: Plan, folder: Path, *, warn: Callable[[str], None]) -> None:
    """Tell every tracker that some cell of the sweep has, each once, where the report lies."""
    sweep = {"sweep": plan.name, "directory": str(sweep_dir(plan.graph.store.root, plan.name))}
    told: list[Choice] = []
    for cell in plan.cells:
        for choice in cell.cell.choices("tracker"):
            if choice in told:
                continue
            told.append(choice)
            try:
                with within(PATIENCE_OF_REPORTS):
                    choice.build().report_written(dict(sweep), str(folder))
            except (Exception, SystemExit) as error:
                if is_disk_full(error):
                    raise StoreFullError(f"tracker {choice.method.name}: {full_text(error)}") from error
                warn(f"tracker {choice.method.name} did not take the report: {error}")
