"""The nodes of one placed job: node 0 is the worker, the others train along in the stages it calls to."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypedDict

from harness.errors import ConfigError, StoreError
from harness.plan.need import Need
from harness.plan.plan import Plan
from harness.run.child import Limits
from harness.run.execute import Task
from harness.run.isolation import Child, Server
from harness.run.resources import Options
from harness.store import Store
from harness.store.files import read_json, write_json
from harness.training.meeting import Meeting

PATIENCE = 300.0
"""Seconds in which the nodes of a job must have started."""
LOOK = 0.2
"""Seconds between two looks of a node at what it is called to."""


class Call(TypedDict):
    """What node 0 calls to."""

    key: str
    folder: str


@dataclass(kw_only=True)
class Crew:
    """The nodes that a scheduler has given to one job, known to each other by claims in the store.

    State: `call` names the stage that node 0 is making; it is a file of the store while that runs
    """

    store: Store
    job: str
    node: int
    num_nodes: int
    _until: float = field(default_factory=lambda: time.monotonic() + PATIENCE)
    _folder: Path | None = None

    @classmethod
    def of(cls, store: Store, room: Need) -> Crew | None:
        """The crew that SLURM's variables name, for a room of several nodes; else None.

        Raises: ConfigError where they are not set
        """
        if room.nodes == 1:
            return None
        seen = os.environ
        if "SLURM_JOB_ID" not in seen or "SLURM_NODEID" not in seen:
            raise ConfigError(
                f"a worker for {room.nodes} nodes runs in a task of a SLURM job, one on each node; "
                "SLURM_JOB_ID or SLURM_NODEID is not set"
            )
        job = f"job-{seen['SLURM_JOB_ID']}-{seen.get('SLURM_RESTART_COUNT', '0')}"
        return cls(store=store, job=job, node=int(seen["SLURM_NODEID"]), num_nodes=room.nodes)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be known to the others as this node.

        Raises: StoreError where another process is this node
        """
        claim = self.store.claims.acquire(self._name(self.node))
        if claim is None:
            raise StoreError(f"another process is node {self.node} of {self.job}; start one task a node")
        try:
            with claim:
                yield
        finally:
            if self.node == 0:
                self.dismiss()
                self.store.claims.release_dead(self._name(node) for node in range(self.num_nodes))

    def alive(self, node: int) -> bool:
        """Whether a node has joined and neither left nor died."""
        return self.store.claims.held(self._name(node))

    def complete(self) -> bool:
        """Whether all nodes are there."""
        return all(self.alive(node) for node in range(self.num_nodes))

    def coming(self) -> bool:
        """Whether nodes that are not there may still be starting."""
        return time.monotonic() < self._until

    def call(self, key: str) -> Meeting:
        """Call the others to a stage; returns where they meet."""
        self._until = 0.0  # Whoever is missing from now on has gone.
        self._folder = self.store.checkpoints(key) / f"meeting-{uuid.uuid4().hex[:8]}"
        self._folder.mkdir()
        write_json(self._file, {"key": key, "folder": str(self._folder)})
        return Meeting(folder=self._folder, node=0, num_nodes=self.num_nodes)

    def dismiss(self) -> None:
        """The stage has ended, one way or the other."""
        self._file.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def called(self) -> tuple[str, Path] | None:
        """The stage that node 0 calls to, and the meeting's folder; None where there is none."""
        try:
            found = read_json(self._file, Call)
        except (FileNotFoundError, ValueError):
            return None
        return found["key"], Path(found["folder"])

    @property
    def _file(self) -> Path:
        return self.store.root / "crews" / f"{self.job}.json"

    def _name(self, node: int) -> str:
        return f"{self.job}.node{node}"


def serve(crew: Crew, made: Plan, chosen: Options, *, preload: list[str], say: Callable[[str], None]) -> None:
    """Train along in every stage that node 0 calls to, until it ends or dies. Stores nothing."""
    if not any(Need.of(node).nodes > 1 for node in made.missing()):
        return
    signal.signal(signal.SIGTERM, _leave)
    with crew.joined():
        while not crew.alive(0) and crew.coming():
            time.sleep(LOOK)
        server = Server(preload)
        answered: set[Path] = set()
        while crew.alive(0):
            call = crew.called()
            if call is not None and call[1] not in answered:
                answered.add(call[1])
                _answer(crew, made, chosen, call, server=server, say=say)
            time.sleep(LOOK)


def _answer(
    crew: Crew,
    made: Plan,
    chosen: Options,
    call: tuple[str, Path],
    *,
    server: Server,
    say: Callable[[str], None],
) -> None:
    """Run a stage beside node 0 until it has ended here or there; what it makes here is thrown away."""
    key, folder = call
    node = made.graph.nodes[key]
    with tempfile.TemporaryDirectory(prefix="harness-node-") as out:
        device = "cuda" if node.device == "cuda" else "cpu"
        task = Task(
            node=node,
            store=crew.store.root,
            externals=made.graph.externals,
            device=device,
            meeting=Meeting(folder=folder, node=crew.node, num_nodes=crew.num_nodes),
            out=Path(out),
        )
        limits = Limits(threads=node.threads, memory=chosen.memory)
        log = crew.store.root / "logs" / f"{key}.node{crew.node}.log"
        say(f"training along: {node.title}")
        child = server.start(task, stage=node.stage, log=log, limits=limits, device=device)
        try:
            while child.outcome is None and crew.called() == call and crew.alive(0):
                child.poll()
                time.sleep(LOOK)
        finally:
            _end(child)
    assert child.outcome is not None
    say(f"{node.title}: {child.outcome.status} {child.outcome.reason}".rstrip())


def _end(child: Child) -> None:
    child.kill()
    while child.outcome is None:
        child.poll()
        time.sleep(0.01)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
