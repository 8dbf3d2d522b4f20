"""How cells end: their observers while stages run, their record once all have."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from harness.plan.plan import Plan, PlannedCell
from harness.run import record
from harness.run.lifecycle import Session
from harness.run.outcome import Outcome
from harness.run.view import View
from harness.store.claims import Claim


class Closing:
    """Ends the cells of a plan, each in one process only.

    State: `outcomes` by cell id, of every cell that is finished
    """

    def __init__(self, plan: Plan, view: View) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._plan, self._view = plan, view
        self._sessions: dict[str, tuple[Session, Claim]] = {}
        self._times: dict[str, float | None] = {}
        self._hung: dict[str, str] = {}
        self._started = time.time()

    def open(self, cell: PlannedCell) -> Session | None:
        """The observers of a cell; None while another process has them."""
        if cell.cell.id in self._sessions:
            return self._sessions[cell.cell.id][0]
        claim = self._plan.graph.store.claims.acquire(f"{self._plan.name}.{cell.cell.id}")
        if claim is None:
            return None
        try:
            session = Session(self._plan, cell, started=time.time(), warn=self._view.say, hung=self._hung)
        except BaseException:
            claim.release()
            raise
        self._sessions[cell.cell.id] = (session, claim)
        return session

    def step(self, cell: PlannedCell, key: str, step: int, facts: dict[str, float]) -> None:
        """Tell the observers of a cell, where this process has them."""
        opened = self._sessions.get(cell.cell.id)
        if opened is not None:
            opened[0].step(key, step, facts)

    def release(self) -> None:
        """Give up the cells that are not finished."""
        for _, claim in self._sessions.values():
            claim.release()

    def finish(self, cell: PlannedCell, outcome: Outcome, *, made: Collection[str]) -> bool:
        """Write the record, once over all processes; False while another process is at it.

        `made`: the stages that were not in the store when the worker began
        """
        made_here = any(key in made for key in cell.keys) and outcome.status == "ok"
        if not made_here and record.finished(self._plan, cell, outcome, made=self._made_at):
            self.outcomes[cell.cell.id] = outcome
            self._view.cell_finished(cell, outcome, reused=True)
            return True
        session = self.open(cell)
        if session is None:
            return False
        _, claim = self._sessions.pop(cell.cell.id)
        with claim:
            written = record.finished(self._plan, cell, outcome, made=self._made_at)
            if written is None:
                reused = {key: key not in made for key in cell.keys}
                arguments: dict[str, Any] = {"outcome": outcome, "reused": reused, "started": self._started}
                written = record.write(self._plan, cell, notes=session.notes, **arguments)
                session.finish(written)
                if session.notes and written.get("notes") != session.notes:
                    record.write(self._plan, cell, notes=session.notes, **arguments)
        self.outcomes[cell.cell.id] = outcome
        self._view.cell_finished(cell, outcome, reused=False)
        return True

    def _made_at(self, key: str) -> float | None:
        """When an artifact was made, read once after it was stored."""
        if key not in self._times and (artifact := self._plan.graph.store.find(key)) is not None:
            self._times[key] = artifact.meta.get("created")
        return self._times.get(key)
