"""Stages on one machine: those that measure a speed wait for the others, and keep them out, for a while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_LOCKS = Path("/proc/locks")
_FORGET = 5.0
"""Seconds without a refused try after which somebody who tries again begins to wait anew."""


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """What somebody found who entered alone, or did not; read again at the end, in whatever process."""

    folder: Path
    alone: bool
    intruded: int

    def held(self) -> bool:
        """Whether nobody else was there, and nobody came."""
        return self.alone and _intruded(self.folder) == self.intruded


class Presence:
    """A stage's presence on this machine; an exclusive one waits for the others and keeps them out.

    Two locks: whoever wants to be alone takes `intent` first, so that no newcomer starts meanwhile. Whoever
    is refused for longer than `patience` enters all the same, and says so in a third file: a measurement
    learns from it that it was not alone. Others are patient twice as long as a measurement.

    Units: `patience` in seconds; None for ever
    State: `alone` of one that has entered, whether nobody else was there
    """

    def __init__(self, *, alone: bool, patience: float | None = None, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._wants = alone
        self._patience = patience if patience is None or alone else 2 * patience
        self._held: dict[str, int] = {}
        self._since: float | None = None
        self._tried = 0.0
        self.alone = False

    def enter(self) -> bool:
        """Try to be there; False means: try again later."""
        now = time.monotonic()
        if self._since is not None and now - self._tried > _FORGET:
            self._since = None
        self._tried = now
        if not self._enters():
            self._since = now if self._since is None else self._since
            if self._patience is None or now - self._since < self._patience:
                return False
            self._intrude()
        self._since = None
        return True

    def leave(self) -> None:
        """Be gone."""
        for name in tuple(self._held):
            self._release(name)

    @property
    def waited(self) -> float:
        """Seconds since it was first refused."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def left(self) -> float | None:
        """Seconds until it enters all the same; None for never."""
        return None if self._patience is None else max(0.0, self._patience - self.waited)

    def waits_for(self) -> str:
        """Who keeps this one out, for people."""
        return ", ".join(_described(pid) for pid in self._holders()) or "another process"

    def quiet(self) -> Quiet:
        """Of one that has just entered, what it found."""
        return Quiet(folder=self._folder, alone=self.alone, intruded=_intruded(self._folder))

    def _enters(self) -> bool:
        if self._wants:
            self.alone = self._lock("intent", fcntl.LOCK_EX) and self._lock("present", fcntl.LOCK_EX)
            return self.alone
        if not self._lock("intent", fcntl.LOCK_SH):
            return False
        entered = self._lock("present", fcntl.LOCK_SH)
        self._release("intent")
        return entered

    def _intrude(self) -> None:
        """Enter beside others, and leave word for one that is measuring."""
        self._release("intent")
        if not self._lock("present", fcntl.LOCK_SH):
            path = self._folder / _file("intruded")
            with contextlib.suppress(OSError):
                path.touch()
                path.chmod(0o666)  # for the next one, whoever it is

    def _holders(self) -> list[int]:
        """Processes of this machine that hold the locks, ours left out, as the system lists them."""
        files = [self._folder / _file(name) for name in ("intent", "present")]
        inodes = {str(path.stat().st_ino) for path in files if path.exists()}
        found: dict[int, None] = {}
        with contextlib.suppress(OSError):
            for line in _LOCKS.read_text().splitlines():
                fields = line.split()
                if "->" not in fields and fields[5].rpartition(":")[2] in inodes and int(fields[4]) > 0:
                    found[int(fields[4])] = None
        return [pid for pid in found if pid != os.getpid()]

    def _lock(self, name: str, kind: int) -> bool:
        if name in self._held:
            return True
        path = self._folder / _file(name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # it may be another user's
        except FileNotFoundError:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._held[name] = file
        return True

    def _release(self, name: str) -> None:
        file = self._held.pop(name, None)
        if file is not None:
            os.close(file)


def _intruded(folder: Path) -> int:
    """When somebody last entered where one was measuring, by the folder's own clock; 0 for never."""
    try:
        return (folder / _file("intruded")).stat().st_mtime_ns
    except OSError:
        return 0


def _file(name: str) -> str:
    return f"harness-{name}.lock"


def _described(pid: int) -> str:
    """`harness sweep experiment=demo (pid 7, stopped)`."""
    words, state = ["a process"], ""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    start = next((i for i, word in enumerate(words) if Path(word).name in ("harness", "harness-lm")), None)
    text = " ".join(["harness", *words[start + 1 :]] if start is not None else words[:4]).strip()
    return f"{text[:80]} (pid {pid}{', stopped' if state in ('T', 't') else ''})"
