"""A stage whose process somebody stopped gives no sign of life: that is said, and it is run again in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path

import pytest

from harness.plan.plan import directory
from harness.run import isolation
from harness.run.resources import Options
from harness.run.worker import Worker
from harness.store.claims import is_stopped
from harness.store.records import read_record

from toy import Silent, ToyCell, executions, toy_plan  # isort: skip


def pids(root: Path) -> list[int]:
    """Processes of the stage beta, as they began."""
    file = root / "executions.log"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [int(line[-1]) for line in lines if line[:2] == ["started", "beta"]]


def run(
    root: Path, *, then: tuple[signal.Signals, float] | None = None
) -> tuple[list[str], dict[str, object]]:
    """A cell whose first process of beta is stopped, and gets a signal later: what was said; the outcome."""
    plan = toy_plan(root, [ToyCell({"beta.seconds": 0.5})])
    view = Silent()

    def stop() -> None:
        while not pids(root):
            time.sleep(0.02)
        (pid,) = pids(root)
        os.kill(pid, signal.SIGSTOP)
        if then is not None:
            time.sleep(then[1])
            os.kill(pid, then[0])

    stopping = threading.Thread(target=stop)
    stopping.start()
    Worker(plan, Options(), view).run()
    stopping.join()
    return view.said, read_record(directory(plan, plan.cells[0]))["outcome"]


def test_a_stopped_stage_is_said_to_be_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "SAID", 0.5)
    monkeypatch.setattr(isolation, "STALE", 3.0)
    said, outcome = run(tmp_path)
    first, second = pids(tmp_path)
    assert outcome["status"] == "ok"
    assert any(
        f"its process is stopped (SIGSTOP): `kill -CONT {first}` lets it go on" in line for line in said
    )
    assert any("stopped from outside (SIGSTOP) for 3 s); attempt 2 follows" in line for line in said)
    assert not is_stopped(second)


def test_a_stage_that_goes_on_in_time_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "STALE", 30.0)
    _, outcome = run(tmp_path, then=(signal.SIGCONT, 2.5))
    assert (outcome["status"], len(pids(tmp_path))) == ("ok", 1)


def test_what_starts_stages_is_started_again_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(isolation, "STALE", 0.5)
    isolation._start_server()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)
    plan = toy_plan(tmp_path, [ToyCell({})])
    Worker(plan, Options(), Silent()).run()
    assert read_record(directory(plan, plan.cells[0]))["outcome"]["status"] == "ok"
    assert "`kill -CONT" in caplog.text
    assert Counter(executions(tmp_path)) == Counter(plan.wanted())
