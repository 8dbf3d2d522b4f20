"""A worker: pulls ready stages through claims until none is left. Any number may work on one plan."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from types import FrameType

from harness.errors import StoreFullError
from harness.plan.need import Need
from harness.plan.node import Node
from harness.plan.order import coverage_first
from harness.plan.plan import Plan
from harness.plan.trainings import memory_bound
from harness.run.agenda import Agenda, State
from harness.run.child import Limits
from harness.run.closing import Closing
from harness.run.crew import Crew
from harness.run.deaths import Deaths
from harness.run.execute import Task
from harness.run.isolation import Child, Server
from harness.run.outcome import FULL, MAX_LOST, Outcome, Outcomes, is_final
from harness.run.preload import preload
from harness.run.presence import Presence
from harness.run.resources import Options, Resources, Share
from harness.run.view import View
from harness.store.claims import Claim

TELL = 2.0
"""Seconds for which a stage is kept out before it is said by whom."""
ELSEWHERE = 0.5
"""Seconds between two looks at a stage that another process is making."""


@dataclass
class Running:
    """A stage that this worker is making."""

    node: Node
    child: Child
    claim: Claim
    presence: Presence
    share: Share
    company: bool = False
    """Whether another stage ran beside it."""


class Terminated(Exception):  # noqa: N818
    """SIGTERM came: a scheduler, or whoever, wants this process gone."""


class Worker:
    """Runs a plan to its end, or to the first Ctrl-C.

    State: `outcomes` by cell id, of every cell that is finished
    """

    def __init__(
        self,
        plan: Plan,
        options: Options,
        view: View,
        *,
        room: Need | None = None,
        crew: Crew | None = None,
    ) -> None:
        """`room` is what a launcher gave this worker: it leaves larger stages to others, and ends when
        nothing that fits is ready or being made. None: it runs everything. `crew`: the nodes of a room of
        several, this one the first."""
        self.plan, self.options, self.view, self.room = plan, options, view, room
        self._closing = Closing(plan, view)
        self.outcomes = self._closing.outcomes
        self.executed: list[str] = []
        """Keys of the stages this worker made."""
        self._store = plan.graph.store
        self._kept = Outcomes(self._store.root)
        self._cells = coverage_first(plan.cells)
        self._nodes = plan.graph.nodes
        self._bounds: dict[str, float] = {}
        self._running: dict[str, Running] = {}
        self._server: Server | None = None
        self._deaths = Deaths()
        self._stopping = 0
        self._terminated = False
        self._full: Outcome | None = None
        self._resources = Resources(options, self._nodes.values())
        self._refused: dict[bool, Presence] = {}
        """Of stages that must be alone, and of others: what waits to be let onto this machine."""
        self._told = ""
        self._crew = crew

    def run(self) -> Counter[str]:
        """Work until every cell has its outcome; returns how many ended how.

        Raises: StoreFullError where the disk is full; KeyboardInterrupt after Ctrl-C; Terminated after
        SIGTERM. All leave a store from which the same command goes on
        """
        listens = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if listens else ()
        previous = {number: signal.signal(number, self._interrupt) for number in signals}
        try:
            self._agenda = Agenda(self.plan, self._cells)
            self._needs = {key: Need.of(self._nodes[key]) for key in self._agenda.initially}
            if self._begins():
                self._serve()
            self._loop()
        finally:
            with contextlib.ExitStack() as held:
                for presence in self._refused.values():
                    held.callback(presence.leave)
                held.callback(self._closing.release)
                for entry in self._running.values():
                    held.callback(self._drop, entry)
                    held.callback(entry.child.end)
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._full is not None:
            raise StoreFullError(self._full.reason)
        if self._terminated:
            raise Terminated
        if self._stopping:
            raise KeyboardInterrupt
        self._tidy()
        return Counter(outcome.status for outcome in self.outcomes.values())

    def _tidy(self) -> None:
        """Killed between storing and giving up its claim, a process leaves one that nobody would ask for."""
        claims = self._store.claims
        own = {*self.plan.wanted(), *(f"{self.plan.name}.{cell.cell.id}" for cell in self._cells)}
        claims.release_dead(name for name in claims.names() if name in own)

    def _loop(self) -> None:
        idle = 0.0
        while self._agenda.pending and not (self._stopping and not self._running):
            progress = self._poll()
            if self._full is None and not self._stopping:
                progress |= self._start_ready()
            progress |= self._finish_cells()
            if self._full is not None and not self._running:
                return
            if not progress and not self._running and not self._useful():
                return
            waiting = self._agenda.num_open - len(self._running)
            self.view.tick(waiting=waiting, elsewhere=len(self._agenda.later))
            idle = 0.0 if progress else min(idle + 0.01, 0.1)
            time.sleep(idle)

    def _useful(self) -> bool:
        """Whether waiting can bring this worker something to do."""
        return self.room is None or any(map(self._fits, self._agenda.ready()))

    def _fits(self, key: str) -> bool:
        return self.room is None or self._needs[key].fits(self.room)

    # Stages

    def _start_ready(self) -> bool:
        progress = False
        for key in self._agenda.ready():
            if any(entry.node.alone or self._deaths.apart(other) for other, entry in self._running.items()):
                break
            if self._agenda.later.get(key, 0.0) > time.monotonic():
                continue
            known = self._kept.read(key)
            if known is not None and self._is_final(known):
                self._agenda.settle(key, State.failed, known)
                progress = True
            elif self._needs[key].nodes > 1 and self._gathers():
                continue
            elif not self._fits(key):
                progress |= self._await(key)
            else:
                share = self._share(key)
                if share is None:
                    break  # What is ready first goes first: a large stage is not starved by small ones.
                progress |= self._try(self._nodes[key], share)
        return progress

    def _gathers(self) -> bool:
        """Whether nodes of the crew are still starting; once one has gone, no stage of several is started."""
        if self._crew is None or self.room is None or self.room.nodes == 1 or self._crew.complete():
            return False
        if self._crew.coming():
            return True
        self.view.say("a node of this job has gone: stages of several nodes are left to other jobs")
        self.room = replace(self.room, nodes=1)
        return False

    def _share(self, key: str) -> Share | None:
        running = [entry.share for entry in self._running.values()]
        bound = self._bounds.get(key)
        if bound is None:
            bound = self._bounds[key] = memory_bound(self._nodes[key])
        return self._resources.share(self._needs[key], running=running, memory=bound)

    def _try(self, node: Node, share: Share) -> bool:
        """Take a ready stage, unless somebody else has it or has finished it."""
        if (node.alone or self._deaths.apart(node.key)) and self._running:
            return False
        # Whoever wants to be alone keeps newcomers out until the machine is free.
        presence = self._refused.setdefault(
            node.alone, Presence(alone=node.alone, patience=self.options.patience)
        )
        if not presence.enter():
            self._tell(node, presence)
            return False
        del self._refused[node.alone]
        with contextlib.ExitStack() as held:
            held.callback(presence.leave)
            claim = self._store.claim(node.key)
            if claim is not None:
                held.callback(claim.release)
            if claim is None or self._store.find(node.key) is not None:
                return self._await(node.key)
            self._agenda.later.pop(node.key, None)
            self._launch(node, share, claim, presence)
            held.pop_all()  # the running stage has them now
        return True

    def _tell(self, node: Node, presence: Presence) -> None:
        """Say for whom a stage waits, once they have kept it out for a moment."""
        if presence.waited < TELL:
            return
        whom = f"{node.title} waits for {presence.waits_for()}"
        if whom == self._told:
            return
        self._told = whom
        why = "to measure a speed alone" if node.alone else "which may be measuring a speed alone"
        left = presence.left
        then = "" if left is None else f"; in {left:.0f} s it goes on beside them, and the record says so"
        self.view.say(f"{whom}, {why}{then} (hydra.sweeper.patience)")

    def _await(self, key: str) -> bool:
        """Look again in a while whether another process has made it; True if it has."""
        if self._store.find(key) is not None:
            self._agenda.settle(key, State.stored)
            return True
        self._agenda.later[key] = time.monotonic() + ELSEWHERE
        return False

    def _begins(self) -> bool:
        """Whether there is a stage that this worker can take at once."""
        held = self._store.claims.held
        ready = (key for key in self._agenda.ready() if self._fits(key) and not held(key))
        return any(known is None or not self._is_final(known) for known in map(self._kept.read, ready))

    def _serve(self) -> None:
        """Have what starts stages, with what several of them load."""
        heavy = preload(self._nodes[key] for key in self._agenda.initially)
        self._server = Server(heavy)
        names = [name for name in heavy if not name.startswith("harness")]
        if names:
            self.view.say(f"loading {', '.join(names)} once for all stages")
        self._server.fork()

    def _launch(self, node: Node, share: Share, claim: Claim, presence: Presence) -> None:
        if self._server is None:
            self._serve()
        assert self._server is not None
        self._closing.open(self._agenda.owners[node.key])
        limits = Limits(
            threads=node.threads,
            memory=self.options.memory,
            seconds=self.options.timeout,
            gpus=share.gpus if len(share.gpus) > 1 else (),
        )
        meeting = self._crew.call(node.key) if self._crew and self._needs[node.key].nodes > 1 else None
        task = Task(
            node=node,
            store=self._store.root,
            externals=self.plan.graph.externals,
            device=share.device,
            meeting=meeting,
            quiet=presence.quiet() if node.alone else None,
        )
        try:
            child = self._server.start(
                task,
                stage=node.stage,
                log=self._store.root / "logs" / f"{node.key}.log",
                limits=limits,
                device=share.device,
                note=claim.works_in,
                stopping=lambda: bool(self._stopping),
            )
        except (EOFError, ConnectionError) as error:  # The signal that stops this process ended that one too.
            raise KeyboardInterrupt from error
        self._agenda.start(node.key)
        self._running[node.key] = Running(node, child, claim, presence, share)
        for entry in self._running.values():
            entry.company |= len(self._running) > 1
        self.view.started(node)

    def _poll(self) -> bool:
        progress = False
        for key, entry in list(self._running.items()):
            for what, value in entry.child.poll():
                if what == "step":
                    self._on_step(entry.node, *value)
                elif what == "progress":
                    self.view.step(entry.node, *value)
                elif what == "said":
                    self.view.say(f"{entry.node.title}: {value}")
            if entry.claim.lost:
                entry.child.kill()
            outcome = entry.child.outcome
            if outcome is None:
                continue
            progress = True
            del self._running[key]
            try:
                self._ended(entry, outcome)
            finally:
                self._drop(entry)
        return progress

    def _ended(self, entry: Running, outcome: Outcome) -> None:
        key = entry.node.key
        if self._stopping > 1 and outcome.status != "ok":
            self._agenda.abandon(key)
            return
        self.view.finished(entry.node, outcome, entry.child.seconds)
        if outcome.status == "ok":
            self._kept.clear(key)
            self.executed.append(key)
            self._agenda.settle(key, State.stored)
        elif outcome.status == FULL:
            self._full = outcome
        else:
            self._failed_once(entry, outcome)

    def _failed_once(self, entry: Running, outcome: Outcome) -> None:
        key = entry.node.key
        if outcome.server and not self._deaths.blame(key, company=entry.company):
            self.view.say(f"{entry.node.title} was lost ({outcome.reason}); it is started again")
            self._agenda.repeat(key)
            return
        before = self._kept.read(key)
        attempts = before.attempts + 1 if before is not None and before.status == outcome.status else 1
        lacked = entry.share.device if outcome.gpu else "cpu"
        memory = outcome.memory or self._resources.memory(lacked) if outcome.status == "oom" else None
        attempts = MAX_LOST if outcome.server else attempts
        outcome = replace(outcome, attempts=attempts, memory=memory)
        self._kept.write(key, outcome)
        if outcome.status == "lost" and attempts < MAX_LOST:
            self.view.say(f"{entry.node.title} was lost ({outcome.reason}); attempt {attempts + 1} follows")
            self._agenda.repeat(key)
        else:
            self._agenda.settle(key, State.failed, outcome)

    def _drop(self, entry: Running) -> None:
        """Give up all that a stage held, whatever of it cannot be given up (on a full disk, say)."""
        with contextlib.ExitStack() as held:
            held.callback(entry.presence.leave)
            held.callback(entry.claim.release)
            if self._crew is not None:
                self._crew.dismiss()
            self._store.clear(entry.node.key)

    def _on_step(self, node: Node, step: int, facts: dict[str, float]) -> None:
        self.view.step(node, step, facts)
        self._closing.step(self._agenda.owners[node.key], node.key, step, facts)

    def _is_final(self, outcome: Outcome) -> bool:
        return is_final(
            outcome,
            memory=self._resources.memory("cuda" if outcome.gpu else "cpu"),
            limit=self.options.timeout,
            retry=self.options.retry,
        )

    # Cells

    def _finish_cells(self) -> bool:
        progress = False
        for name in list(self._agenda.ended):
            cell = self._agenda.pending[name]
            if self._closing.finish(cell, self._agenda.outcome(cell), made=self._agenda.initially):
                self._agenda.close(name)
                progress = True
        return progress

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._stopping += 1 if number == signal.SIGINT else 2
        self._terminated |= number == signal.SIGTERM
        if self._stopping == 1:
            number = len(self._running)
            if not number:
                return
            self.view.say(
                f"finishing {number} running stage{'' if number == 1 else 's'}, starting no more; Ctrl-C "
                f"again stops {'it' if number == 1 else 'them'} at once. The same command goes on from here"
            )
        else:
            for entry in self._running.values():
                entry.child.kill()
