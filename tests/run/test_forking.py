"""The fork server as a fork of this process: only where that is safe, and gone when this process is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store.claims import _alive, _start_time

SCRIPT = """
import colorsys, os, sys, threading, time
from multiprocessing import forkserver
from pathlib import Path
sys.path[:0] = {path!r}
from harness.run import forking
from harness.run.child import Limits
from harness.run.isolation import Server
from loads import Loads
{before}
print(forking.is_safe(), flush=True)
server = Server(["harness.run.execute"])
server.fork()
pid = forkserver._forkserver._forkserver_pid
child = server.start(Loads("colorsys"), stage="x", log=Path({root!r}) / "log", limits=Limits())
while child.outcome is None:
    child.poll()
    time.sleep(0.01)
print(child.outcome.status, child.result, pid, flush=True)
{after}
os._exit(0)  # as one that is killed: nobody tidies up
"""
LOADS = """
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Loads:
    module: str

    def __call__(self, report):
        return self.module in sys.modules
"""


def run(tmp_path: Path, *, before: str = "", after: str = "") -> list[str]:
    (tmp_path / "loads.py").write_text(LOADS)
    code = SCRIPT.format(path=[str(tmp_path)], root=str(tmp_path), before=before, after=after)
    asked = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=asked
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_stage_finds_loaded_what_the_command_has_loaded(tmp_path: Path) -> None:
    assert run(tmp_path)[:3] == ["True", "ok", "True"]


@pytest.mark.parametrize(
    "before",
    [
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "sys.modules['huggingface_hub'] = os",
        "forking.LARGEST = 2**20",
        # OpenMP was told how long to wait once torch had been loaded, as in a notebook.
        "import torch; from harness import notices; notices.ask_for_quiet()",
    ],
)
def test_what_is_not_safe_to_fork_gets_a_server_of_its_own(tmp_path: Path, before: str) -> None:
    assert run(tmp_path, before=before)[:3] == ["False", "ok", "False"]


def test_the_fork_ends_with_its_maker_and_answers_a_signal(tmp_path: Path) -> None:
    for after in ("", "os.kill(pid, 15); assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -15"):
        pid = int(run(tmp_path, after=after)[3])
        started = _start_time(pid)
        until = time.monotonic() + 10
        while started and _alive(pid, started) and time.monotonic() < until:
            time.sleep(0.01)
        assert not started or not _alive(pid, started)


def test_a_server_that_was_killed_is_started_again_as_a_process_of_its_own(tmp_path: Path) -> None:
    after = """
os.kill(pid, 9)
child = server.start(Loads("colorsys"), stage="x", log=Path(sys.path[0]) / "log", limits=Limits())
while child.outcome is None:
    child.poll()
    time.sleep(0.01)
print(child.outcome.status, child.result)
"""
    assert run(tmp_path, after=after)[4:] == ["ok", "False"]
