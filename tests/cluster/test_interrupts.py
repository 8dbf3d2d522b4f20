"""Ctrl-C as a user sees it: once, what runs is finished; twice, all stops; the same command goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from harness.store import Store

from .conftest import Sweep, wait_for


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_says_what_happens_and_the_same_command_goes_on(sweep: Sweep, times: int) -> None:
    sweep.cells, sweep.seconds = 4, 6.0
    process = sweep.start("hydra.sweeper.workers=1")
    wait_for(lambda: bool(sweep.runs("started")), what=f"a stage\n{sweep.said()}")
    process.send_signal(signal.SIGINT)
    if times == 2:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    said = sweep.said()
    assert "finishing 1 running stage, starting no more; Ctrl-C again stops it at once" in said
    assert "stopped; the same command goes on from here" in said
    assert "unfinished" in said
    assert "Traceback" not in said
    assert sum(sweep.runs("finished").values()) == (1 if times == 1 else 0)
    assert Store(sweep.root).claims.names() == []
    assert sweep.start().wait(timeout=400) == 0, sweep.said()
    sweep.check(lost=1)


@pytest.mark.slow
def test_ctrl_c_while_libraries_load_ends_in_a_line_and_not_in_a_traceback(sweep: Sweep) -> None:
    process = sweep.start()
    wait_for(lambda: "loading " in sweep.said(), what=f"the first stage\n{sweep.said()}")
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the command
    assert process.wait(timeout=120) == 130
    assert "stopped; the same command goes on from here" in sweep.said()
    assert "Traceback" not in sweep.said()
    assert Store(sweep.root).claims.names() == []
