"""Cells of several nodes: one task a node, as SLURM starts them, of which the first is the worker."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from third_party import ROOT

from harness.plan.make import make_plan
from harness.plan.need import Need
from harness.plan.plan import Plan
from harness.run.launch import write_plan
from harness.run.resources import Options
from harness.store import Store

from .conftest import wait_for

pytestmark = pytest.mark.slow
SMALL = ["stages=[corpus,tokenizer,tokens,pretrain]", "scale=smoke", "corpus.max_bytes=300000"]
WORK = (
    "import pathlib, sys; from harness.commands.sweep import work_on; "
    "sys.exit(work_on(pathlib.Path(sys.argv[1])))"
)
LONG = [
    *SMALL,
    "parallelism=ddp",
    "parallelism.num_nodes=2",
    "pretrain.budget={unit:steps,amount:500}",
    "pretrain.checkpoint_every=10",
    "pretrain.log_every=1",
]


@dataclass
class Job:
    """A plan in the hands of two tasks, which stand for two nodes of a SLURM job."""

    folder: Path
    arguments: list[str]
    number: int = 0
    tasks: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def plan(self) -> Plan:
        return make_plan(self.arguments, store=self.store, places_nodes=True)

    def start(self, *, nodes: int = 2) -> None:
        """A job: the environment of each task is what SLURM sets."""
        self.number += 1
        file = write_plan(self.plan, Options(), Need(nodes=2, processes=2, threads=2))
        self.tasks = []
        for node in range(nodes):
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
                "SLURM_JOB_ID": str(self.number),
                "SLURM_NODEID": str(node),
            }
            with self.output(node).open("w") as log:
                command = [sys.executable, "-c", WORK, str(file)]
                started = subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True
                )
            self.tasks.append(started)

    def output(self, node: int) -> Path:
        return self.folder / f"job{self.number}-node{node}.txt"

    def said(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("job*-node*.txt")))

    def end(self) -> list[int]:
        """Exit codes of the tasks."""
        return [task.wait(timeout=300) for task in self.tasks]

    def steps(self) -> list[int]:
        """The logging steps of the one unfinished training, in the order in which they came."""
        files = list(self.store.root.glob("partial/*/steps.jsonl"))
        lines = files[0].read_text().splitlines() if files else []
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def check(self) -> None:
        """All is stored, and nothing left over."""
        assert not self.plan.missing(), self.said()
        store = self.store
        assert store.claims.names() == []
        assert not list(store.root.glob("crews/*"))
        assert not list(store.root.glob("partial/*"))
        assert not list(store.root.glob("tmp/*"))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path, [])
    yield made
    for task in made.tasks:
        if task.poll() is None:
            task.kill()
            task.wait()


def weights(job: Job) -> list[bytes]:
    return [file.read_bytes() for file in sorted(job.store.root.glob("artifacts/*/*/*.safetensors"))]


def facts(job: Job) -> list[dict[str, Any]]:
    found = (job.store.get(key) for key in job.plan.wanted())
    return [artifact.facts for artifact in found if artifact.stage == "pretrain"]


def test_two_nodes_train_as_two_processes_of_one_do(job: Job) -> None:
    sizes = "{parallelism: ddp,parallelism.num_processes: 2},{parallelism: ddp,parallelism.num_nodes: 2}"
    job.arguments = [*SMALL, f"cells=[{sizes}]"]
    job.start()
    assert job.end() == [0, 0], job.said()
    job.check()
    first, second = weights(job)
    assert first == second
    one, other = facts(job)
    assert one["loss_curve"] == other["loss_curve"]
    assert "training along: pretrain" in job.output(1).read_text()


def kill_in_training(job: Job, *, whole: bool) -> None:
    """Kill the second node in mid-training: its training process, or the whole task."""
    wait_for(lambda: max(job.steps(), default=0) > 30, what=f"the training\n{job.said()}")
    task = psutil.Process(job.tasks[1].pid)
    # The last is the task's fork server's stage's process, which trains.
    (task if whole else task.children(recursive=True)[-1]).send_signal(signal.SIGKILL)


def resumed(job: Job) -> int | None:
    """The step at which the unfinished training went on after its interruption; None before that."""
    steps = job.steps()
    return next((step for before, step in itertools.pairwise(steps) if step <= before), None)


def wait_for_resumption(job: Job) -> None:
    wait_for(lambda: resumed(job) is not None, what=f"the training to go on\n{job.said()}")
    step = resumed(job)
    assert step is not None
    assert step > 20, "from a checkpoint, not from the start"


def test_a_node_whose_training_is_killed_costs_one_attempt(job: Job) -> None:
    job.arguments = LONG
    job.start()
    kill_in_training(job, whole=False)
    wait_for_resumption(job)
    assert job.end() == [0, 0], job.said()
    assert "pretrain was lost (a process that trained along" in job.said()
    job.check()


def test_a_node_that_dies_leaves_the_stage_to_the_next_job(job: Job) -> None:
    job.arguments = LONG
    job.start()
    kill_in_training(job, whole=True)
    assert job.end() == [0, -signal.SIGKILL], job.said()
    said = job.said()
    assert "pretrain was lost (a process that trained along" in said
    assert "a node of this job has gone: stages of several nodes are left to other jobs" in said
    assert job.store.claims.names() == []
    job.start()
    wait_for_resumption(job)
    assert job.end() == [0, 0], job.said()
    job.check()
