"""Typed outcomes: how a stage or a cell ended, and when an outcome is final."""

from __future__ import annotations

import errno
import re
import time
import traceback
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.errors import (
    ChangedError,
    ConfigError,
    DivergedError,
    HarnessError,
    IncompatibleError,
    LostError,
)
from harness.store.files import is_disk_full, read_json, write_json
from harness.store.fingerprint import environment

STATUSES = ("ok", "oom", "diverged", "incompatible", "failed", "timeout", "lost")
FULL = "full"
"""The disk was full: not an outcome; the sweep pauses."""
MAX_LOST = 3
"""How often in all a stage that was lost is tried."""
_OOM_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "std::bad_alloc",
)
_GPU = re.compile(r"\b(CUDA|HIP)( error:)? out of memory")
"""What torch says where it was the memory of a GPU."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How something ended."""

    status: str
    """One of STATUSES."""
    reason: str = ""
    """For people; empty for ok."""
    stage: str | None = None
    step: int | None = None
    details: str = ""
    """Traceback, for whoever repairs it."""
    memory: int | None = None
    """Bytes of memory that did not suffice (oom)."""
    gpu: bool = False
    """Whether that is memory of a GPU, not main memory."""
    limit: float | None = None
    """Seconds that did not suffice (timeout)."""
    attempts: int = 1
    server: bool = False
    """Whether it was lost with the process that starts stages, and not by itself."""
    environment: str = field(default_factory=environment)

    def brief(self) -> dict[str, Any]:
        """What a record says."""
        return {"status": self.status, "reason": self.reason, "stage": self.stage, "step": self.step}


def from_exception(error: BaseException, *, stage: str) -> Outcome:
    """The outcome that an exception inside a stage stands for."""
    named = ": ".join(filter(None, (type(error).__name__, str(error))))
    text = str(error) if isinstance(error, HarnessError) else named
    details = "".join(traceback.format_exception(error))
    status, step, where, gpu = "failed", None, environment(), False
    if is_disk_full(error):
        status = FULL
    elif is_out_of_memory(error):
        status, gpu = "oom", bool(_GPU.search(details))
    elif isinstance(error, DivergedError):
        status, step, text = "diverged", error.step, error.reason
    elif isinstance(error, IncompatibleError):
        status = "incompatible"
    elif isinstance(error, LostError):
        status = "lost"
    elif isinstance(error, ChangedError):
        where = ""  # final nowhere: the files may be as they were by the next time
    return Outcome(
        status=status,
        reason=text[:2000],
        stage=stage,
        step=step,
        details=details[-20000:],
        gpu=gpu,
        environment=where,
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception says that memory ran out: Python's, torch's on CPU or on a device."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OOM_WORDS):
            return True
        error = error.__cause__
    return False


class Outcomes:
    """Outcomes other than ok, by key, beside the artifacts; an artifact means ok."""

    def __init__(self, root: Path) -> None:
        self.root = root / "outcomes"

    def path(self, key: str) -> Path:
        """Where the outcome of `key` stands."""
        return self.root / key[:2] / f"{key}.json"

    def read(self, key: str) -> Outcome | None:
        """How the last attempt at `key` ended, if it made no artifact."""
        try:
            found = read_json(self.path(key), Outcome)
        except (OSError, ValueError):
            return None  # the stage is tried again
        outcome = Outcome(**{f.name: found[f.name] for f in fields(Outcome) if f.name in found})
        return outcome if outcome.status in STATUSES else None

    def write(self, key: str, outcome: Outcome) -> None:
        """Remember how an attempt ended."""
        write_json(self.path(key), {**asdict(outcome), "time": time.time()})

    def clear(self, key: str) -> None:
        """Forget it: the artifact is there."""
        self.path(key).unlink(missing_ok=True)


def is_final(outcome: Outcome, *, memory: int, limit: float | None, retry: frozenset[str]) -> bool:
    """Whether trying again would end the same way.

    `memory` is what there is of the kind that ran out. oom is final for that much or less, timeout for that
    limit or less, failed for the same environment, lost after MAX_LOST attempts; diverged and incompatible
    always (the key holds the code).
    """
    if outcome.status not in STATUSES:
        raise ConfigError(f"unknown outcome {outcome.status!r}")
    if outcome.status in retry or "all" in retry:
        return False
    if outcome.status == "oom":
        return outcome.memory is not None and memory <= outcome.memory
    if outcome.status == "timeout":
        return limit is not None and outcome.limit is not None and limit <= outcome.limit
    if outcome.status == "failed":
        return outcome.environment == environment()
    if outcome.status == "lost":
        return outcome.attempts >= MAX_LOST
    return True
