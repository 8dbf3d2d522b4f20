"""A real SLURM of two nodes: workers are cancelled, requeued, timed out, lose their node, span both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from third_party import harness

from harness.store import Store
from harness.store.records import records

from .conftest import Sweep, wait_for

pytestmark = pytest.mark.slow
SLURM = ("hydra/launcher=submitit_slurm",)


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def jobs(*states: str) -> list[str]:
    """Ids of the jobs in any of these states; of all that are not over by default."""
    asked = ",".join(states or ("pending", "running", "completing"))
    return slurm("squeue", "-h", "-r", "-o", "%i", "-t", asked).split()


@pytest.fixture(autouse=True)
def nodes() -> Iterator[list[str]]:
    """The nodes' names; jobs that a test left are cancelled and the nodes take jobs again."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM here: run tests/cluster/slurm.sh")
    names = slurm("sinfo", "-h", "-N", "-o", "%N").split()
    yield names
    if jobs():
        slurm("scancel", *jobs())
    wait_for(lambda: not jobs(), what="the queue to empty")
    for name in names:
        if "idle" not in slurm("sinfo", "-h", "-n", name, "-o", "%T"):
            slurm("scontrol", "update", f"NodeName={name}", "State=RESUME")


def mid_sweep(sweep: Sweep, *, finished: int = 1) -> None:
    """Wait until some stages are done and another one runs."""
    wait_for(
        lambda: len(sweep.runs("finished")) >= finished and sweep.runs("started") != sweep.runs("finished"),
        what=f"the middle of the sweep\n{sweep.said()}",
    )


def test_a_requeued_worker_goes_on(sweep: Sweep) -> None:
    sweep.cells, sweep.seconds = 8, 2.0
    process = sweep.start(*SLURM, "hydra.sweeper.workers=2")
    mid_sweep(sweep)
    first = jobs("running")[0]
    slurm("scontrol", "requeue", first)
    assert process.wait(timeout=300) == 0, sweep.said()
    sweep.check(lost=1)


def test_what_was_cancelled_resumes_with_the_same_command(sweep: Sweep) -> None:
    sweep.cells, sweep.seconds, sweep.in_background = 6, 2.0, True
    process = sweep.start(*SLURM, "hydra.sweeper.workers=1")
    mid_sweep(sweep, finished=2)
    slurm("scancel", *jobs("running"))
    wait_for(lambda: not jobs(), what="the job to end")
    done = len(sweep.runs("finished"))
    assert 2 <= done < 6
    # A cluster without accounting never says that the job is gone; whoever cancelled it leaves too.
    if process.poll() is None:
        process.send_signal(2)
    assert process.wait(timeout=60) in (1, 130), sweep.said()
    again = sweep.start(*SLURM, "hydra.sweeper.workers=1")
    assert again.wait(timeout=300) == 0, sweep.said()
    sweep.check(lost=1)


def test_a_worker_that_meets_its_time_limit_is_requeued_and_goes_on(sweep: Sweep) -> None:
    sweep.cells, sweep.seconds = 6, 10.0
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.max_num_timeout=9")
    process = sweep.start(*SLURM, *limit, "hydra.launcher.signal_delay_s=10", "hydra.sweeper.workers=1")

    def requeued() -> bool:
        logs = sweep.root.glob("launcher/**/*_log.*")
        return any("Requeued job" in file.read_text() for file in logs)

    wait_for(requeued, what=f"the time limit\n{sweep.said()}")
    assert sum(sweep.runs("finished").values()) < 6
    # On a machine too busy to start Python within a minute, the next minute would end no stage either.
    slurm("scontrol", "update", f"JobId={jobs()[0].partition('_')[0]}", "TimeLimit=30")
    assert process.wait(timeout=400) == 0, sweep.said()
    sweep.check(lost=9)


def test_a_node_that_is_drained_and_then_lost_costs_no_stage(sweep: Sweep, nodes: list[str]) -> None:
    sweep.cells, sweep.seconds = 6, 2.0
    node, *others = nodes
    for other in others:
        slurm("scontrol", "update", f"NodeName={other}", "State=DRAIN", "Reason=the test uses one node")
    process = sweep.start(*SLURM, "hydra.sweeper.workers=1")
    mid_sweep(sweep)
    before = len(sweep.runs("finished"))
    slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=a test drains it")
    wait_for(lambda: len(sweep.runs("finished")) > before, what="the running worker to go on")
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=a test breaks it")
    wait_for(lambda: not jobs("running", "completing"), what="the job to lose its node")
    assert len(sweep.runs("finished")) < 6
    slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert process.wait(timeout=300) == 0, sweep.said()
    sweep.check(lost=1)


def test_a_cell_of_two_nodes_ends_as_one_of_two_processes(
    nodes: list[str], tmp_path: Path, own_store: Path
) -> None:
    if len(nodes) < 2:
        pytest.skip("this SLURM has one node")
    small = ["stages=[corpus,tokenizer,tokens,pretrain,evaluate]", "scale=smoke", "corpus.max_bytes=300000"]
    sizes = "{parallelism: ddp,parallelism.num_processes: 2},{parallelism: ddp,parallelism.num_nodes: 2}"
    done = harness(
        ["sweep", *small, f"cells=[{sizes}]", *SLURM, "hydra.sweeper.workers=1"], cwd=tmp_path, start=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [record for _, record in records(own_store)]
    assert sorted(record["config"]["parallelism"]["num_nodes"] for record in found) == [1, 2]
    one, other = (sorted((m["metric"], m["value"]) for m in record["metrics"]) for record in found)
    assert one == other
    logs = "".join(file.read_text() for file in own_store.glob("launcher/**/*_log.err"))
    assert "training along: pretrain" in logs
    store = Store(own_store)
    wait_for(lambda: not jobs(), what="the jobs to end")
    assert store.claims.names() == []
    assert not list(own_store.glob("crews/*"))
    assert not list(own_store.glob("partial/*"))
