"""Lineage: what became of documents on their way, one line for each that was dropped or rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

FILE = "lineage.jsonl"


class Lineage:
    """Writes lines as they come, so that none are held; closes at the end of a `with`."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / FILE).open("w", encoding="utf-8")

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


def rows(directory: Path) -> Iterator[dict[str, Any]]:
    """The lines of an artifact, in the order in which they came about; none where it keeps no lineage."""
    path = directory / FILE
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
