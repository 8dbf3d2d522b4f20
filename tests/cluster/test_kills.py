"""Three `harness sweep` processes on one store, killed at random moments: no stage twice, none lost."""

from __future__ import annotations

import random
import signal
import time

import pytest

from .conftest import Sweep


@pytest.mark.slow
def test_three_real_sweeps_survive_kills(sweep: Sweep) -> None:
    sweep.cells, sweep.seconds = 12, 2.0
    random.seed(0)
    processes = [sweep.start("hydra.sweeper.workers=1") for _ in range(3)]
    while not sweep.runs("started"):
        time.sleep(0.1)
    for _ in range(4):
        time.sleep(random.uniform(0.2, 4.0))
        victim = random.randrange(3)
        processes[victim].send_signal(signal.SIGKILL)
        processes[victim].wait()
        processes[victim] = sweep.start("hydra.sweeper.workers=1")
    for process in processes:
        assert process.wait(timeout=300) == 0, sweep.said()
    sweep.check(lost=4)
