"""Isolation: a child process for every stage, forked off a server that has loaded the heavy imports."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import HarnessError, LostError
from harness.run.child import Limits, Report, child_main
from harness.run.forking import forked, is_safe
from harness.run.machine import control_groups
from harness.run.outcome import Outcome
from harness.run.scratch import new_scratch, remove_abandoned
from harness.store.claims import STALE, is_stopped

log = logging.getLogger("harness.run")
PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds after each attempt to start a child whose fork server was gone."""
SAID = 5.0
"""Seconds for which a child is stopped before that is said."""
GONE = 255
"""Exit code that multiprocessing gives a child whose fork server cannot be asked."""
LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of a folder in which multiprocessing's sockets have an address, of which systems take 107."""


class Server:
    """Starts children; the fork server behind it is one per process and starts with the first child."""

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.run.isolation", *preload])
        remove_abandoned()

    def fork(self) -> None:
        """Start the fork server now as a fork of this process, if that is safe; else the first child does."""
        if is_safe():
            with forked():
                _start_server()

    def start(
        self,
        call: Callable[[Report], Any],
        *,
        stage: str,
        log: Path,
        limits: Limits,
        device: str = "cpu",
        note: Callable[[int], None] = lambda pid: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Child:
        """Run `call(report)` in a child of its own process group; it must be picklable.

        `note` writes down the child's pid, so that others can end what this process may leave behind; the
        child begins only after that, and never if this process dies before. A fork server that has died, as
        a large process may when memory is short, is started again, unless `stopping`.

        Raises: what `note` raises; LostError where the fork server dies again and again
        """
        scratch = new_scratch()
        arguments = (call, stage, str(log), limits, device, scratch)
        try:
            process, ours = self._fork_at_last(arguments, name=f"harness {stage}", stopping=stopping)
        except BaseException:
            shutil.rmtree(scratch)
            raise
        child = Child(process, ours, stage=stage, limits=limits, log=log, scratch=scratch)
        try:
            note(child.pid)
        except BaseException:
            child.end()
            raise
        with contextlib.suppress(OSError):  # a child that is gone already is found by its poll
            ours.send(None)
        return child

    def _fork_at_last(
        self, arguments: tuple[Any, ...], *, name: str, stopping: Callable[[], bool]
    ) -> tuple[ForkServerProcess, Connection]:
        """As `_fork`, where the fork server may have to be started again.

        Raises: LostError where it dies again and again; ConnectionError where it is gone, and we stop
        """
        for pause in PAUSES:
            try:
                return self._fork(arguments, name=name)
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                if stopping():
                    raise ConnectionError(str(error)) from error
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
                time.sleep(pause)  # its death is seen a moment later
        raise LostError(
            f"the process that starts stages ended {len(PAUSES)} times in a row ({reason}); what it said of "
            "that stands above; if nothing does, look whether the machine runs out of memory"
        )

    def _fork(self, arguments: tuple[Any, ...], *, name: str) -> tuple[ForkServerProcess, Connection]:
        """A child of the fork server, waiting for our word.

        Raises: EOFError, ConnectionError, FileNotFoundError where the server is gone
        """
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=child_main, args=(theirs, *arguments), name=name)
        try:
            _start_server()
            _let_go_on()
            with _without_script():
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours


def _start_server() -> None:
    """Have the fork server, and ignore Ctrl-C in it from its first moment: it is for the worker to answer."""
    listens = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if listens else None
    try:
        with _short_addresses():
            forkserver.ensure_running()
    finally:
        if listens:
            signal.signal(signal.SIGINT, before)


def _let_go_on() -> None:
    """Where somebody has stopped the fork server (SIGSTOP), wait, as for a child; then end it, so that it is
    started again: asked for a child, it would never answer.
    """
    server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if server is None or not is_stopped(server):
        return
    log.warning(
        "the process that starts stages is stopped (SIGSTOP): `kill -CONT %d` lets it go on; in %.0f s it is "
        "started again, and its stages with it",
        server,
        STALE,
    )
    until = time.monotonic() + STALE
    while is_stopped(server):
        if time.monotonic() > until:
            os.kill(server, signal.SIGKILL)
            raise ConnectionError("the process that starts stages was stopped from outside (SIGSTOP)")
        time.sleep(0.1)


@contextlib.contextmanager
def _short_addresses() -> Iterator[None]:
    """Have multiprocessing's sockets in /tmp where the folder of temporary files is too long for an address:
    clusters name it by job and user.
    """
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        multiprocessing.util.get_temp_dir()  # made once, and kept
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Start children that do not import the script that started this process: it would run all over again.

    Raises: HarnessError where the script itself defines what a child needs
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    except (pickle.PicklingError, AttributeError) as error:
        if "__main__" not in str(error):
            raise
        raise HarnessError(
            f"a stage needs what the script itself defines ({error}); move it into a module of its own, "
            "which the script imports"
        ) from error
    finally:
        sys.modules["__main__"] = script


class Child:
    """A running child: poll it until `outcome` is there.

    State: `messages` of a poll are (what, value) pairs; the result of the call is in `result`
    """

    def __init__(
        self,
        process: ForkServerProcess,
        connection: Connection,
        *,
        stage: str,
        limits: Limits,
        log: Path,
        scratch: str,
    ) -> None:
        self.process, self.connection, self.scratch = process, connection, scratch
        self.stage, self.limits, self.log = stage, limits, log
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        self.result: Any = None
        self.stopped = 0.0
        """Seconds for which it has been seen stopped (SIGSTOP), one after another."""
        self._looked = self.started
        self._oom_kills = oom_kills()
        self._stopped = ""
        self._server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def poll(self) -> list[tuple[str, Any]]:
        """Messages since the last poll; sets `outcome` once the child has ended.

        A child that somebody stopped (SIGSTOP) gives no sign of life, as a dead one: it is ended after STALE
        seconds, and lost. It may be let go on before, and a debugger may hold it.
        """
        messages = self._receive()
        if self.outcome is None:
            messages += self._look()
        if self.outcome is None and self.limits.seconds is not None and self.seconds > self.limits.seconds:
            self.outcome = Outcome(
                status="timeout",
                reason=f"ran longer than {self.limits.seconds:g} s",
                stage=self.stage,
                limit=self.limits.seconds,
            )
            self.kill()
        if self.outcome is None and not self.process.is_alive():
            messages += self._receive()
            if self.outcome is None:
                self.outcome = self._died()
        if self.outcome is not None:
            self._reap()
        return messages

    def _look(self) -> list[tuple[str, Any]]:
        """Once a second: whether it is stopped; a long pause of our own is not held against it."""
        passed = time.monotonic() - self._looked
        if passed < 1:
            return []
        self._looked += passed
        before, self.stopped = self.stopped, self.stopped + min(passed, 2.0) if is_stopped(self.pid) else 0.0
        if self.stopped > STALE:
            reason = f"its process was stopped from outside (SIGSTOP) for {STALE:.0f} s"
            self.outcome = Outcome(status="lost", reason=reason, stage=self.stage)
            self.kill()
        elif before <= SAID < self.stopped:
            then = (
                f"`kill -CONT {self.pid}` lets it go on; in {STALE - self.stopped:.0f} s it is started again"
            )
            return [("said", f"its process is stopped (SIGSTOP): {then}")]
        return []

    def kill(self) -> None:
        """End the child and its whole group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """End it at once, and wait until it is gone with what it had in its temporary folder."""
        self.kill()
        self._reap()

    def _reap(self) -> None:
        self.process.join(timeout=5)
        self.kill()
        self.process.join(timeout=5)
        self.connection.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _receive(self) -> list[tuple[str, Any]]:
        messages: list[tuple[str, Any]] = []
        if self.connection.closed:
            return messages
        try:
            while self.outcome is None and self.connection.poll():
                what, value = self.connection.recv()
                if what == "result":
                    self.result = value
                    self.outcome = Outcome(status="ok", stage=self.stage)
                elif what == "error":
                    self.outcome = (self._starved() if value.status == "lost" else None) or value
                else:
                    messages.append((what, value))
        except (EOFError, OSError):
            self.process.join(timeout=5)
        return messages

    def _died(self) -> Outcome:
        """What the death of a child that said nothing means."""
        code = self.process.exitcode
        starved = self._starved() if code == -signal.SIGKILL else None
        if starved is not None:
            return starved
        if code == GONE and self._server is not None and has_ended(self._server):
            reason = (
                "the process that starts stages ended, and its stages with it; look whether the machine runs "
                "out of memory"
            )
            return Outcome(
                status="lost", reason=reason, stage=self.stage, details=tail(self.log), server=True
            )
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return Outcome(
            status="lost", reason=f"its process ended with {how}", stage=self.stage, details=tail(self.log)
        )

    def _starved(self) -> Outcome | None:
        """That the system killed it, or a process of its own, for lack of memory; None where it did not."""
        if oom_kills() <= self._oom_kills:
            return None
        return Outcome(status="oom", reason="killed by the system: out of memory", stage=self.stage)


def has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; waits a moment for one that is about to."""
    try:
        for _ in range(20):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            time.sleep(0.01)
    except ChildProcessError:  # it was waited for
        return True
    return False


def oom_kills() -> int:
    """How many processes the system has killed for lack of memory: in our control group, else overall."""
    for file in _oom_counters():
        try:
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            continue
    return 0


def tail(log: Path, *, lines: int = 30) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _oom_counters() -> list[Path]:
    names = ("memory.events", "memory.oom_control")
    return [*(folder / name for folder in control_groups() for name in names), Path("/proc/vmstat")]
