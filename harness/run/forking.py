"""The fork server as a fork of this process, where that is safe: nothing is imported twice."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker, util
from pathlib import Path
from typing import NoReturn

from harness.notices import is_deaf
from harness.run.machine import resident_bytes

READ_ONCE = ("huggingface_hub", "transformers", "datasets", "lm_eval", "tokenizers")
"""Libraries that read the environment when they are loaded; a plan sets it later (offline, no telemetry)."""
LARGEST = 512 * 1024**2
"""Bytes of a process that is forked: its memory counts in what its children are measured to take."""
_THREADS = Path("/proc/self/task")
_FILES = Path("/proc/self/fd")


def is_safe() -> bool:
    """Whether a fork of this process is as good as a new one.

    One thread, so that no pool and no lock is left half-way; no GPU in use; no library that has read an
    environment which was set since; and little memory.
    """
    torch = sys.modules.get("torch")
    return (
        _THREADS.is_dir()
        and len(os.listdir(_THREADS)) == 1
        and not any(name in sys.modules for name in READ_ONCE)
        and not is_deaf("torch")
        and not (torch is not None and torch.cuda.is_initialized())
        and resident_bytes(os.getpid()) <= LARGEST
    )


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Within it, `multiprocessing` makes a process that runs Python by forking this one.

    Only where `is_safe()`; what starts within must be the fork server alone.
    """
    resource_tracker.ensure_running()  # a process of its own, which is not to be a fork
    spawn = util.spawnv_passfds  # type: ignore[attr-defined]
    util.spawnv_passfds = _fork  # type: ignore[attr-defined,assignment]
    try:
        yield
    finally:
        util.spawnv_passfds = spawn  # type: ignore[attr-defined]


def _fork(path: bytes, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """A fork that runs the program which `python -c PROGRAM` would; returns its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _serve(arguments[-1], passed)
    return pid


def _serve(program: str, passed: Sequence[int]) -> NoReturn:
    """The fork: without this process's handlers, and without its end of the pipe that says it lives."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _close_other_ends(passed)
        # Whoever shows this process's output (a test, a notebook) does not show that of its stages.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "rw"[n > 0], closefd=False) for n in range(3))
        gc.freeze()  # a collection would copy every page
        exec(program, {"__name__": "__main__"})
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _close_other_ends(passed: Sequence[int]) -> None:
    """Close what shares a pipe with a file that was passed: the server ends when nobody else holds it."""
    pipes = {os.fstat(file).st_ino for file in passed}
    for name in os.listdir(_FILES):
        with contextlib.suppress(OSError):
            if int(name) not in passed and os.fstat(int(name)).st_ino in pipes:
                os.close(int(name))
