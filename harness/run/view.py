"""What whoever shows a worker's progress is told."""

from __future__ import annotations

from typing import Protocol

from harness.plan.node import Node
from harness.plan.plan import PlannedCell
from harness.run.outcome import Outcome


class View(Protocol):
    """Shows what a worker does."""

    def started(self, node: Node) -> None: ...
    def step(self, node: Node, step: int, facts: dict[str, float]) -> None: ...
    def finished(self, node: Node, outcome: Outcome, seconds: float) -> None: ...
    def cell_finished(self, cell: PlannedCell, outcome: Outcome, *, reused: bool) -> None: ...
    def tick(self, *, waiting: int, elsewhere: int) -> None: ...
    def say(self, text: str) -> None: ...
