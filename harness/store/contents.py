"""Content hashes of files from outside the store; a file is read again only when it may have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.store.files import read_cache, sha256_file, write_json

_SETTLED = 2.0
"""Seconds after its last change from which a file's times tell whether it changes again; clocks of file
systems are that coarse."""


@dataclass
class Contents:
    """SHA-256 of files by path, remembered while size, inode and times stay as they are.

    State: `cache` holds path -> [size, inode, modification time, change time, hash]; it may be deleted at any
    time
    """

    cache: Path
    _known: dict[str, list[Any]] = field(default_factory=dict)
    _changed: bool = False

    def __post_init__(self) -> None:
        self._known = read_cache(self.cache)

    def sha256(self, file: Path) -> str:
        """The hash of a file's content."""
        name, stat = os.path.abspath(file), file.stat()
        stated = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        known = self._known.get(name)
        if known is not None and known[:-1] == stated:
            return str(known[-1])
        settled = time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED
        found = sha256_file(file)
        if settled:
            self._known[name] = [*stated, found]
            self._changed = True
        return found

    def digest(self, files: Mapping[str, Path]) -> str:
        """One hash over names and contents of files."""
        hashes = {name: self.sha256(file) for name, file in files.items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def save(self) -> None:
        """Write the cache; a store that cannot be written merely hashes again."""
        if self._changed:
            with contextlib.suppress(OSError, StoreError):
                write_json(self.cache, self._known)
                self._changed = False
