"""Lineage: what became of documents on their way, one line for each that was dropped or rewritten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

FILE = "lineage.jsonl"


class Lineage:
    """Writes lines as they come, so that none are held; closes at the end of a `with`."""

    def __init__(self, directory: Path, *, name: str = FILE, keep: int = 0) -> None:
        """`keep` bytes of the lines that are there stay, the rest is cut off."""
        self.path = directory / name
        self.path.touch()
        os.truncate(self.path, keep)
        self._file = self.path.open("a", encoding="utf-8")

    def save(self) -> int:
        """Make the lines so far survive a kill; returns their bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def add(self, name: str, *, did: str, by: str, **more: Any) -> None:
        """One thing that was dropped or rewritten (`did`), by which method or stage, and why."""
        self._file.write(json.dumps({"id": name, "did": did, "by": by, **more}, ensure_ascii=False) + "\n")

    def __enter__(self) -> Lineage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def join(parts: Sequence[Lineage], directory: Path) -> None:
    """Write the lines of several that are closed as one lineage, one after another."""
    with (directory / FILE).open("wb") as target:
        for part in parts:
            with part.path.open("rb") as source:
                shutil.copyfileobj(source, target)


def rows(directory: Path) -> Iterator[dict[str, Any]]:
    """The lines of an artifact, filter after filter; none where it keeps no lineage."""
    path = directory / FILE
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
