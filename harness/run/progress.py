"""Progress: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from harness.plan.manifest import stages_of
from harness.plan.node import Node
from harness.plan.plan import Plan, PlannedCell
from harness.run.outcome import FULL, Outcome
from harness.run.pace import Pace, left_text
from harness.store.claims import STALE

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY, RARELY = 10.0, 60.0
"""Seconds between two plain lines about a running stage: at first, and where it runs on and on."""

SHOWN = 3
"""Stages of other processes that a line names."""
ALONE = "waiting until nothing else runs on this machine, so that a speed is measured alone"


class Lines:
    """Plain lines: one for each stage and cell, and one now and then about what runs."""

    def __init__(self, plan: Plan, *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = len(plan.cells)
        self._done: Counter[str] = Counter()
        self._running: dict[str, tuple[Node, float, str]] = {}
        self._last = time.monotonic()
        self._pause = EVERY
        self._begun = time.monotonic()
        self._logs = plan.graph.store.root / "logs"
        self._pace, self._stages = Pace(plan.graph.store), stages_of(plan)
        self._open = {cell.cell.id: cell.keys for cell in plan.cells}
        """Stages of the cells that have not ended."""

    def started(self, node: Node) -> None:
        self._pause = EVERY
        self._running[node.key] = (node, time.monotonic(), "")

    def step(self, node: Node, step: int, facts: dict[str, float]) -> None:
        started = self._running[node.key][1]
        self._running[node.key] = (node, started, describe_step(step, facts, time.monotonic() - started))

    def finished(self, node: Node, outcome: Outcome, seconds: float) -> None:
        self._running.pop(node.key, None)
        # Why a sweep pauses is said once, when it does.
        reason = f": {outcome.reason}" if outcome.reason and outcome.status != FULL else ""
        step = f" at step {outcome.step}" if outcome.step is not None else ""
        log = f" (log: {self._logs / node.key}.log)" if outcome.status in ("failed", "lost") else ""
        self.say(f"{node.title}  {outcome.status} in {seconds:.1f} s{step}{reason}{log}")

    def cell_finished(self, cell: PlannedCell, outcome: Outcome, *, reused: bool) -> None:
        self._done[outcome.status] += 1
        self._open.pop(cell.cell.id, None)
        if reused:
            return
        where = " ".join(f"{name}={label}" for name, label in cell.levels.items()) or cell.cell.id
        reason = f" at {outcome.stage}" if outcome.stage else f": {outcome.reason}" if outcome.reason else ""
        place = f"cell {sum(self._done.values())}/{self._total}"
        self.say(f"{place}  {where} seed={cell.seed}  {outcome.status}{reason}")

    def tick(self, *, waiting: int, elsewhere: int) -> None:
        if time.monotonic() - self._last < self._pause:
            return
        self._pause = min(2 * self._pause, RARELY)
        for node, started, text in self._running.values():
            self.say(f"{self._name(node)}  running for {time.monotonic() - started:.0f} s  {text}".rstrip())
        if not self._running and elsewhere:
            self.say(self._others(elsewhere))
        elif not self._running and waiting:
            self.say(ALONE)
        self.say(self._progress())
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"[{time.monotonic() - self._begun:6.1f} s] {text}", file=self._stream, flush=True)

    def _name(self, node: Node) -> str:
        """A stage, and which of its kind."""
        return f"{node.title} {self._stages[node.key]['levels']}".strip()

    def _progress(self) -> str:
        """Stages of the whole sweep, whoever makes them, and how long the rest takes."""
        stored, running = self._pace.stored(self._stages), self._pace.running(self._stages)
        asked = (key for keys in self._open.values() for key in keys)
        left = self._pace.left(self._stages, asked=asked, running=running)
        return f"{stored} of {len(self._stages)} stages in the store{left_text(left)}"

    def _others(self, number: int) -> str:
        """Whom this process waits for."""
        running = self._pace.running(self._stages)
        made = [f"{self._stages[k]['title']} on {h.get('host')}:{h.get('pid')}" for k, h in running.items()]
        text = f"waiting for {number} stage{'' if number == 1 else 's'} of other processes"
        if not made:
            return text
        more = f" and {len(made) - SHOWN} more" if len(made) > SHOWN else ""
        return (
            f"{text}: {', '.join(made[:SHOWN])}{more}; from one without a sign of life for {STALE:.0f} s "
            "they are taken over"
        )


class Live(Lines):
    """A live table on a terminal; finished stages scroll by above it."""

    def __init__(self, plan: Plan) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        super().__init__(plan)
        self._console = Console(stderr=True)
        self._shown, self._looks = "", 0.0
        """What was last read off the store, and when it is read again."""
        self._live = RichLive(console=self._console, refresh_per_second=4, transient=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def tick(self, *, waiting: int, elsewhere: int) -> None:
        if time.monotonic() - self._last < 0.25:
            return
        self._last = time.monotonic()
        self._live.start()  # not before there is something to show: its thread would forbid a fork
        self._live.update(self._table(waiting, elsewhere))

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _seen(self) -> str:
        """The progress, read anew as often as a slow store bears."""
        began = time.monotonic()
        if began >= self._looks or not self._open:
            self._shown = self._progress()
            ended = time.monotonic()
            self._looks = ended + max(EVERY / 5, 20 * (ended - began))
        return self._shown

    def _table(self, waiting: int, elsewhere: int) -> RenderableType:
        from rich.table import Table

        done = sum(self._done.values())
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        by_outcome = ", ".join(f"{number} {status}" for status, number in self._done.items()) or "none yet"
        table.add_row("cells", f"{done} of {self._total}: {by_outcome}")
        table.add_row(
            "stages",
            f"{len(self._running)} running, {waiting} waiting"
            + (f", {elsewhere} made by other processes" if elsewhere else ""),
        )
        table.add_row("", self._seen())
        if waiting and not self._running and not elsewhere:
            table.add_row("", ALONE)
        for node, started, text in self._running.values():
            table.add_row(f"  {self._name(node)}", f"{time.monotonic() - started:5.0f} s  {text}")
        return table


def view(plan: Plan) -> Lines:
    """The view that fits where the output goes."""
    return Live(plan) if sys.stderr.isatty() else Lines(plan)


def describe_step(step: int, facts: dict[str, float], seconds: float) -> str:
    """What is known of a training: step, loss, tokens/s, time left; of documents, their number and bytes; of
    requests, how many of how many."""
    if "documents" in facts:
        parts = [f"{step:,} documents", f"{facts.get('bytes', 0) / 1e6:,.1f} MB"]
    elif "requests" in facts:
        parts = [f"{step:,} of {facts['requests']:,.0f} requests"]
    else:
        parts = [f"step {step}"]
    if "loss" in facts:
        parts.append(f"loss {facts['loss']:.3f}")
    speed = facts.get("tokens_per_second")
    if speed:
        parts.append(f"{speed:,.0f} tokens/s")
    progress = facts.get("progress", 0.0)
    if 0 < progress < 1:
        left = facts.get("seconds_left", seconds * (1 - progress) / progress)
        parts.append(f"{progress:.0%}, {left:.0f} s left")
    return ", ".join(parts)
