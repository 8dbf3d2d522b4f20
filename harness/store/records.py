"""Records: what a cell yielded, one directory a cell; the only truth a report reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import NewerFormatError, StoreError
from harness.store.files import write_json

FORMAT = 1
NAME = "record.json"
TRIALS = ".tune"
"""After a sweep's name: where the records of its trials stand."""


def record_dir(root: Path, *, sweep: str, cell: str) -> Path:
    """Where the record of a cell stands: `<store>/records/<sweep>/<cell id>`."""
    return root / "records" / sweep / cell


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write a record; a reader sees the old one or the whole new one.

    Raises: StoreFullError, StoreError where the store is read-only
    """
    write_json(directory / NAME, {**record, "format": FORMAT})


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; `path` is its directory or its record.json.

    Raises: StoreError where there is none or it is unreadable; NewerFormatError
    """
    file = path / NAME if path.is_dir() else path
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"No record at {file}; they stand in <store>/records/<sweep>/<cell>/") from None
    except ValueError as error:
        raise StoreError(f"{file} is not a record: {error}. Run the sweep again to write it anew") from None
    if not isinstance(record, dict) or "format" not in record:
        raise StoreError(f"{file} is not a record: it has no 'format'")
    if record["format"] > FORMAT:
        raise NewerFormatError(
            f"{file} was written by a newer version of harness (format {record['format']}, this one reads "
            f"{FORMAT}); upgrade harness, or use another HARNESS_STORE"
        )
    return record


def records(root: Path, *, sweep: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All records of a sweep, or of all sweeps, with their directories, by name."""
    for file in sorted((root / "records").glob(f"{sweep or '*'}/*/{NAME}")):
        yield file.parent, read_record(file)
