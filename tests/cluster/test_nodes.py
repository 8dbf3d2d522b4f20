"""Cells of several nodes: one task a node, as SLURM starts them, of which the first is the worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from third_party import ROOT

from harness.store import Store
from harness.sweep.launch import write_plan
from harness.sweep.plan import Plan, make_plan
from harness.sweep.resources import Need, Options

pytestmark = pytest.mark.slow
SMALL = ["stages=[corpus,tokenizer,tokens,pretrain]", "scale=smoke", "corpus.max_bytes=300000"]
WORK = "import sys, pathlib; from harness.sweep.commands import work_on; sys.exit(work_on(pathlib.Path(sys.argv[1])))"
TWO_NODES = ["parallelism=ddp", "parallelism.num_nodes=2"]


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
        file = write_plan(self.plan, Options(), Need(nodes=2, processes=2))
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
