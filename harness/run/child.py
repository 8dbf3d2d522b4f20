"""The side of a child: its limits, its log, the call that it was forked for, and what it tells of the end."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.util
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.run.machine import visible_gpus
from harness.run.outcome import from_exception

Report = Callable[[str, Any], None]
"""Sends (what, value) to the parent while the call runs."""


_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may use."""

    threads: int = 1
    memory: int | None = None
    """Bytes of address space; None for no limit."""
    seconds: float | None = None
    """Wall-clock time; None for no limit."""
    gpus: tuple[int, ...] = ()
    """The GPUs it sees, where it spreads over several by itself; empty for all."""


def child_main(
    connection: Connection,
    call: Callable[[Report], Any],
    stage: str,
    log: str,
    limits: Limits,
    device: str,
    scratch: str,
) -> None:
    """The child: limits, log, the call, its outcome. Never returns."""
    os.setsid()
    _die_with_parent()
    os.environ["TMPDIR"] = tempfile.tempdir = scratch  # removed by the worker, however this process ends
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # the worker is gone, and nobody knows of this child
    code = 0
    try:
        _redirect(log)
        _limit(limits, device)
        connection.send(("result", call(lambda what, value: connection.send((what, value)))))
    except BaseException as error:
        code = 1
        outcome = from_exception(error, stage=stage)
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            print(outcome.details, file=sys.stderr)
        if outcome.status == "oom" and device == "cpu":
            outcome = replace(outcome, memory=limits.memory)
        _unlimit()
        with contextlib.suppress(OSError):
            connection.send(("error", outcome))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    with contextlib.suppress(Exception):
        multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]  # locks of progress bars
    # Threads that libraries left behind must not keep a finished stage alive.
    os._exit(code)


def _die_with_parent() -> None:
    """End this process group when the worker, or the fork server, is gone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def _redirect(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _limit(limits: Limits, device: str) -> None:
    os.environ.update(
        {name: str(limits.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        | {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"}  # as many as asked, on fewer cores too
    )
    if limits.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus(limits.gpus)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(limits.threads)
    if limits.memory is not None and device == "cpu":
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _unlimit() -> None:
    """Lift the limit, so that the outcome can be told."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
