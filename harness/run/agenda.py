"""What waits for what: stages for their inputs, cells for their stages."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from enum import Enum

from harness.plan.plan import Plan, PlannedCell
from harness.run.outcome import Outcome


class State(Enum):
    """Where a stage stands, as this worker knows it."""

    open = "open"
    running = "running"
    stored = "stored"
    failed = "failed"


class Agenda:
    """The stages and cells of a plan that are left, counted so that no step looks at all of them.

    State: `initially`, the stages that the store did not hold at first; `pending`, the cells without a
    record; `ended`, those of them all of whose stages have ended; `later`, when to look again at a stage
    that another process is making
    """

    def __init__(self, plan: Plan, cells: Sequence[PlannedCell]) -> None:
        """`cells` in the order in which they are to be finished."""
        self._nodes = plan.graph.nodes
        wanted, store = plan.wanted(), plan.graph.store
        self._states = {key: State.open if store.find(key) is None else State.stored for key in wanted}
        self._failed: dict[str, Outcome] = {}
        self.later: dict[str, float] = {}
        rank: dict[str, int] = {}
        self.owners: dict[str, PlannedCell] = {}
        """Of each stage, the first cell that needs it."""
        for place, cell in enumerate(cells):
            for key in cell.keys:
                for needed in (*plan.graph.ancestors(key), key):
                    rank.setdefault(needed, place)
                    self.owners.setdefault(needed, cell)
        order = {key: place for place, key in enumerate(wanted)}
        self.initially = {key for key in wanted if self._states[key] is State.open}
        self._places = {key: (rank.get(key, 0), order[key]) for key in self.initially}
        self._count_stages()
        self._count_cells(cells)

    def _count_stages(self) -> None:
        self._open = set(self.initially)
        self._waits = {key: sum(k in self._open for k in self._inputs(key)) for key in self._open}
        self._users: dict[str, list[str]] = defaultdict(list)
        for key in self._open:
            for needed in self._inputs(key):
                self._users[needed].append(key)
        # Inputs in the store, the most urgent first.
        self._ready = sorted((self._places[key], key) for key in self._open if not self._waits[key])

    def _count_cells(self, cells: Sequence[PlannedCell]) -> None:
        self.pending = {cell.cell.id: cell for cell in cells}
        self._cell_waits = {
            name: 0 if cell.refused else len(self._open & {*cell.keys}) for name, cell in self.pending.items()
        }
        self._cells_of: dict[str, list[str]] = defaultdict(list)
        for name, cell in self.pending.items():
            for key in {*cell.keys} if not cell.refused else ():
                self._cells_of[key].append(name)
        self.ended = [name for name, waits in self._cell_waits.items() if not waits]

    def _inputs(self, key: str) -> list[str]:
        return [k for k in self._nodes[key].inputs.values() if k in self._nodes]

    @property
    def num_open(self) -> int:
        """Stages that have not ended, running ones among them."""
        return len(self._open)

    def ready(self) -> list[str]:
        """Stages to start, the most urgent first."""
        return [key for _, key in self._ready]

    def start(self, key: str) -> None:
        """A ready stage runs."""
        self._states[key] = State.running
        self._ready.remove((self._places[key], key))

    def abandon(self, key: str) -> None:
        """A running stage was stopped, and nothing is to follow."""
        self._states[key] = State.open

    def repeat(self, key: str) -> None:
        """A running stage was lost, and is ready again before all others."""
        self._states[key] = State.open
        self._places[key] = (-1, 0)
        insort(self._ready, (self._places[key], key))

    def settle(self, key: str, state: State, outcome: Outcome | None = None) -> None:
        """A stage has ended: what waited for it is ready, or has failed with it; so are cells."""
        self._open.discard(key)
        self._states[key] = state
        if outcome is not None:
            self._failed[key] = outcome
        if (self._places[key], key) in self._ready:
            self._ready.remove((self._places[key], key))
        self.later.pop(key, None)
        for name in self._cells_of[key]:
            self._cell_waits[name] -= 1
            if not self._cell_waits[name]:
                self.ended.append(name)
        for user in self._users[key]:
            if user not in self._open:
                continue
            if state is State.failed:
                self.settle(user, State.failed, outcome)
                continue
            self._waits[user] -= 1
            if not self._waits[user]:
                insort(self._ready, (self._places[user], user))

    def outcome(self, cell: PlannedCell) -> Outcome:
        """How a cell ended, all of whose stages have."""
        if cell.refused:
            return Outcome(status="incompatible", reason=cell.refused)
        first = next((key for key in cell.keys if self._states[key] is State.failed), None)
        return Outcome(status="ok") if first is None else self._failed[first]

    def close(self, name: str) -> None:
        """An ended cell has its record."""
        self.ended.remove(name)
        del self.pending[name]
