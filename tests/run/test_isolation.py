"""A child begins only once its pid is written down: what nobody could end must not work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from harness.errors import LostError
from harness.run import isolation
from harness.run.child import Limits
from harness.run.isolation import Child, Server
from harness.run.scratch import new_scratch
from harness.store.claims import _alive, _start_time

SUPPORT = Path(__file__).parents[1] / "support"
"""Where toy stages lie."""
STARTER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_isolation import die_instead_of_noting, start
start(Path({root!r}), note=die_instead_of_noting)
"""

SCRIPT = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from harness.commands import sweep
from harness.run.resources import Options
from toy import ToyCell, toy_plan
{definition}
plan = toy_plan(Path({root!r}), [ToyCell({options})])
sys.exit(sweep.work(plan, Options()))
"""


@dataclass(frozen=True)
class Touch:
    """Leaves a file that says it ran."""

    file: Path

    def __call__(self, report: Callable[[str, Any], None]) -> int:
        self.file.touch()
        return 7


@dataclass(frozen=True)
class Litter:
    """Leaves a temporary file and does not end."""

    def __call__(self, report: Callable[[str, Any], None]) -> None:
        report("left", tempfile.mkstemp()[1])
        time.sleep(3600)


def _leave(code: int, report: Callable[[str, Any], None]) -> None:
    os._exit(code)


def start(root: Path, *, note: Callable[[int], None]) -> Child:
    call = Touch(root / "ran")
    return Server().start(call, stage="touch", log=root / "log", limits=Limits(), note=note)


def die_instead_of_noting(pid: int) -> None:
    print(pid, _start_time(pid), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(pids: list[int], pid: int) -> None:
    pids.append(pid)
    raise OSError("no room for a note")


def test_a_child_runs_after_its_pid_is_noted(tmp_path: Path) -> None:
    def note(pid: int) -> None:
        time.sleep(0.3)
        ran.append((tmp_path / "ran").exists())

    ran: list[bool] = []
    child = start(tmp_path, note=note)
    while child.outcome is None:
        child.poll()
        time.sleep(0.01)
    assert ran == [False]
    assert (child.outcome.status, child.result) == ("ok", 7)
    assert (tmp_path / "ran").exists()


def test_a_child_whose_pid_nobody_noted_never_runs(tmp_path: Path) -> None:
    code = STARTER.format(path=[str(Path(__file__).parent), str(SUPPORT)], root=str(tmp_path))
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    pid, started = starter.stdout.split()
    wait_until_gone(int(pid), started)
    assert not (tmp_path / "ran").exists()


def test_a_child_whose_pid_cannot_be_noted_is_ended(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(OSError, match="no room"):
        start(tmp_path, note=partial(refuse, pids))
    wait_until_gone(pids[0], _start_time(pids[0]))
    assert not (tmp_path / "ran").exists()


def run_script(folder: Path, *, definition: str = "", options: str) -> subprocess.CompletedProcess[str]:
    """A script that sweeps at its top level, without `if __name__ == "__main__"`."""
    file = folder / "script.py"
    path = [str(SUPPORT)]
    file.write_text(
        SCRIPT.format(path=path, root=str(folder / "store"), definition=definition, options=options)
    )
    command = [sys.executable, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_plain_script_may_sweep(tmp_path: Path) -> None:
    done = run_script(tmp_path, options="{'beta.number': 2}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("1 cell, ") == 1, "no child runs the script again"


def test_what_a_script_defines_itself_is_refused_at_once_with_what_to_do(tmp_path: Path) -> None:
    definition = "class Number(int):\n    pass"
    done = run_script(tmp_path, definition=definition, options="{'beta.number': Number(2)}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "harness.errors.HarnessError: a stage needs what the script"
    )
    assert "move it into a module of its own" in done.stderr
    assert not list((tmp_path / "store" / "claims").iterdir())


def wait_until_gone(pid: int, started: str) -> None:
    end = time.monotonic() + 30
    while _alive(pid, started):
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


def test_a_fork_server_that_was_killed_is_started_again(tmp_path: Path) -> None:
    """As the OOM killer does: whoever runs is lost with it, and the next child begins all the same."""
    for _ in range(3):
        child = start(tmp_path, note=lambda pid: None)
        while child.outcome is None:
            child.poll()
            time.sleep(0.01)
        assert child.outcome.status == "ok"
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        os.kill(server, signal.SIGKILL)


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_child_that_went_with_its_fork_server_is_told_from_one_that_ended_alike(
    tmp_path: Path, by_itself: bool
) -> None:
    call = partial(_leave, 255) if by_itself else Litter()
    child = Server().start(call, stage="gone", log=tmp_path / "log", limits=Limits())
    if not by_itself:
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    while child.outcome is None:
        child.poll()
        time.sleep(0.01)
    assert (child.outcome.status, child.outcome.server) == ("lost", not by_itself)
    assert ("exit code 255" if by_itself else "the process that starts stages ended") in child.outcome.reason


@pytest.mark.parametrize("stopping", [False, True])
def test_a_fork_server_that_never_stands_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    tried = []

    def dead() -> None:
        tried.append(time.monotonic())
        raise EOFError

    monkeypatch.setattr(isolation, "_start_server", dead)
    monkeypatch.setattr(isolation, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    expected = ConnectionError if stopping else LostError
    with pytest.raises(expected):
        Server().start(
            Litter(), stage="litter", log=tmp_path / "log", limits=Limits(), stopping=lambda: stopping
        )
    assert len(tried) == (1 if stopping else 3)
    assert not list(tmp_path.glob("harness-stage-*"))


def test_a_child_that_could_not_be_noted_ends_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pids = []

    def refuse(pid: int) -> None:
        pids.append((pid, _start_time(pid)))
        raise OSError("read-only")

    with pytest.raises(OSError, match="read-only"):
        start(tmp_path, note=refuse)
    wait_until_gone(*pids[0])
    assert not list(tmp_path.glob("harness-stage-*"))


def test_what_a_child_leaves_in_its_temporary_folder_goes_with_it(tmp_path: Path) -> None:
    child = Server().start(Litter(), stage="litter", log=tmp_path / "log", limits=Limits())
    while not (left := [value for what, value in child.poll() if what == "left"]):
        time.sleep(0.01)
    assert Path(left[0]).exists()
    child.end()
    assert not Path(left[0]).parent.exists()


def test_folders_of_a_killed_worker_go_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, other = Path(new_scratch()), tmp_path / "harness-stage-elsewhere"
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    boot = mine.name.split("-")[2]
    left = [
        tmp_path / f"harness-stage-{boot}-{pid}-{start}-x"
        for pid, start in ((dead.pid, "5"), (os.getpid(), "1"))
    ]
    foreign = tmp_path / f"harness-stage-{'0' * 8}-{dead.pid}-5-x"
    for folder in (other, foreign, *left):
        folder.mkdir()
        (folder / "weights").write_text("large")
    Server()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, other.name, foreign.name])


def test_a_folder_for_temporary_files_may_have_a_long_name(tmp_path: Path) -> None:
    deep = tmp_path / ("job" * 30)
    deep.mkdir()
    code = "from harness.run import isolation; isolation._start_server()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
