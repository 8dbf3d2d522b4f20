"""Claims: who is making what, on any number of machines that share a folder."""

import contextlib
import errno
import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, TypedDict

from harness.store.files import disk_errors, read_json

HEARTBEAT = 10.0
"""Seconds between two signs of life."""
STALE = 60.0
"""Seconds without a sign of life, on the watcher's own clock, after which a claim is dead."""
log = logging.getLogger("harness.store")


class Owner(TypedDict, total=False):
    """Who has a claim."""

    token: str
    host: str
    pid: int
    started: str
    boot: str
    since: float
    worker: tuple[int, str]
    """Process and start of what does the work."""


class Claim:
    """The right to make something, kept alive by a thread until it is released.

    State: `lost` becomes True if another process took the claim over (this one was suspended, say)
    """

    def __init__(self, path: Path, owner: dict[str, Any], *, heartbeat: float) -> None:
        self.path = path
        self.token: str = owner["token"]
        self.lost = False
        self._owner = owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True, name="claim")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def works_in(self, pid: int) -> None:
        """Note the process group that does the work, so that a takeover can end what is left of it.

        Raises: StoreFullError, StoreError where the store is read-only
        """
        self._owner["worker"] = (pid, _start_time(pid))
        if self._is_mine():
            with disk_errors(self.path):
                _replace(self.path, self._owner)

    def release(self) -> None:
        """Give the claim up; does nothing if it was taken over."""
        self._stop.set()
        self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        owner = _read(self.path)
        return owner is not None and owner.get("token") == self.token

    def _beat(self, interval: float) -> None:
        while not self._stop.wait(interval):
            if not self._is_mine():
                self.lost = True
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)


@dataclass
class Claims:
    """All claims below one directory.

    A claim's age is never read off a clock of another machine: a watcher takes it for dead when its
    file's time did not change for `stale` seconds of the watcher's own monotonic clock, or at once
    when its process is known to be gone. So a claim from the future is watched like any other, and so is
    one of a process on this machine that is stopped or hangs.
    """

    root: Path
    heartbeat: float = HEARTBEAT
    stale: float = STALE
    _seen: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    """Name -> (token, file time, when this watcher first saw that pair)."""

    def acquire(self, name: str) -> Claim | None:
        """The claim on `name`, taken over from a dead holder if need be; None while a living one has it."""
        path = self.root / name
        owner = _owner()
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                if _create(path, owner):
                    return Claim(path, owner, heartbeat=self.heartbeat)
                _clear_way(path)
                holder = _read(path)
                if holder is not None and not self._is_dead(name, path, holder):
                    return None
                if holder is not None:
                    return self._take_over(name, path, holder, owner)
        return None

    def holder(self, name: str) -> dict[str, Any] | None:
        """Who has the claim: host, pid, when it began; None where nobody has."""
        return _read(self.root / name)

    def held(self, name: str) -> bool:
        """Whether a process that is not known to be dead has the claim."""
        holder = _read(self.root / name)
        return holder is not None and not self._is_dead(name, self.root / name, holder)

    def names(self) -> list[str]:
        """Names of all claims that stand, dead ones included."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith(".") and "+" not in p.name)

    def release_dead(self, names: Iterable[str]) -> None:
        """Remove those of these claims whose holders are known to be dead."""
        for name in names:
            claim = self.acquire(name)
            if claim is not None:
                claim.release()

    def _take_over(self, name: str, path: Path, dead: dict[str, Any], owner: dict[str, Any]) -> Claim | None:
        """Replace one dead claim; a claim on its token decides who may, so several never do."""
        token = dead.get("token", "unreadable")
        turn = self.acquire(f"{name}+{token}")
        if turn is None:
            return None
        with turn:
            current = _read(path)
            if current is None or current.get("token", "unreadable") != token:
                return None
            if not _end_worker(dead):
                return None
            _replace(path, owner)
        self._seen.pop(name, None)
        return Claim(path, owner, heartbeat=self.heartbeat)

    def _is_dead(self, name: str, path: Path, holder: dict[str, Any]) -> bool:
        if holder.get("boot") == _boot() and not _alive(holder.get("pid"), holder.get("started")):
            return True
        try:
            time_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        state = (holder.get("token", ""), time_ns)
        *seen, since = self._seen.get(name, (None, 0, now))
        if tuple(seen) != state:
            self._seen[name] = (*state, now)
            return False
        return now - since > self.stale


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "token": uuid.uuid4().hex,
        "host": os.uname().nodename,
        "pid": pid,
        "started": _start_time(pid),
        "boot": _boot(),
        "since": time.time(),
    }


@cache
def _boot() -> str:
    """Names this boot of this machine and this process namespace: where a pid can be looked up."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _start_time(pid: int) -> str:
    """When a process started, so that a pid used again is not mistaken; empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(pid: int | None, started: str | None) -> bool:
    if not pid or pid < 1:  # what is below means a group, or all
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        # A killed process whose first thread is gone still holds files until its last one is.
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()
    return (state not in "ZX" or threads > 1) and _start_time(pid) == started


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped a process of this machine (SIGSTOP); a debugger that holds it has not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _end_worker(owner: dict[str, Any]) -> bool:
    """End what is left of a dead holder's work on this machine, so that it is not done twice.

    Returns: whether it is gone; a process that hangs in the system may take longer than is waited for here
    """
    worker = owner.get("worker")
    if not worker or owner.get("boot") != _boot() or not _alive(worker[0], worker[1]):
        return True
    for end in (os.killpg, os.kill):  # it may not have made its group yet
        with contextlib.suppress(OSError):
            end(worker[0], signal.SIGKILL)
    for _ in range(200):
        if not _alive(worker[0], worker[1]):
            return True
        time.sleep(0.01)
    return False


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Create the file with its content in one step; False if it exists. Works on NFS (link is atomic)."""
    temporary = path.with_name(f".{owner['token']}")
    try:
        temporary.write_text(json.dumps(owner), encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except (PermissionError, NotImplementedError, OSError) as error:
            if not _no_links(error):
                raise
            return _create_exclusive(path, owner)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _no_links(error: OSError | NotImplementedError) -> bool:

    return getattr(error, "errno", None) in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, None)


def _create_exclusive(path: Path, owner: dict[str, Any]) -> bool:
    """As `_create`, on file systems without hard links."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(owner))
    except FileExistsError:
        return False
    return True


def _replace(path: Path, owner: dict[str, Any]) -> None:
    temporary = path.with_name(f".{owner['token']}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(json.dumps(owner), encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, Any] | None:
    """The claim's content; None where there is none; empty where it is half-written or damaged."""
    try:
        return read_json(path, Owner)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _clear_way(path: Path) -> None:
    """Put away what stands where a claim belongs and can be none: a folder, or a link."""
    if path.is_symlink() or path.is_dir():
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        log.warning("%s is no claim; it was moved to %s", path, aside)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
