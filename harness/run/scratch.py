"""Temporary folders of stages; those of a worker that was killed go when the next one starts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from harness.store.claims import _alive, _boot, _start_time

_NAME = re.compile(r"harness-stage-(?P<boot>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started>\d*)-")
"""Whose a folder is: the boot and process namespace in which the pid counts, the pid, and when it started."""


def new_scratch() -> str:
    """A folder of this process, for one stage."""
    pid = os.getpid()
    return tempfile.mkdtemp(prefix=f"harness-stage-{_boot_digest()}-{pid}-{_start_time(pid)}-")


def remove_abandoned(folder: Path | None = None) -> None:
    """Remove what processes of this machine left that are gone; what cannot be told or removed stays."""
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    for path in folder.glob("harness-stage-*"):
        found = _NAME.match(path.name)
        if found is None or found["boot"] != _boot_digest() or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            mine = path.stat().st_uid == os.getuid()
            if mine and not _alive(int(found["pid"]), found["started"]):
                shutil.rmtree(path, ignore_errors=True)


def _boot_digest() -> str:
    return hashlib.sha256(_boot().encode()).hexdigest()[:8]
