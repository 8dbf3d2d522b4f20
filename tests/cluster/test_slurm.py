"""A real SLURM of one node: workers are submitted, cancelled, requeued, timed out, lose their node."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

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
def node() -> Iterator[str]:
    """The node's name; jobs that a test left are cancelled and the node takes jobs again."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM here: run tests/cluster/slurm.sh")
    name = slurm("sinfo", "-h", "-N", "-o", "%N")
    yield name
    if jobs():
        slurm("scancel", *jobs())
    wait_for(lambda: not jobs(), what="the queue to empty")


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
    sweep.cells, sweep.seconds = 6, 2.0
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


def test_a_node_that_is_drained_and_then_lost_costs_no_stage(sweep: Sweep, node: str) -> None:
    sweep.cells, sweep.seconds = 6, 2.0
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
