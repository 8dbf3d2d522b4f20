"""Committed reports, made again from the records that lie beside them; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import DataError
from harness.report.making import PUBLISHED, report
from harness.report.writers import FORMATS

RECORDS = "records.json.gz"


def rebuild(root: Path, *, only: str | None = None, formats: Sequence[str] = FORMATS) -> Iterator[Path]:
    """Folders of the reports below `root`, each after it was written again.

    A report that showed published values shows them again. The records themselves stay as they are.
    Raises: DataError where there is none to rebuild
    """
    files = sorted(root.glob(f"{only or '*'}/{RECORDS}"))
    if not files:
        raise DataError(f"There is no {root / (only or '*') / RECORDS}: no committed report to rebuild")
    for file in files:
        folder = file.parent
        compare = PUBLISHED if (folder / "published.json").exists() else None
        yield report(folder.name, store=file, out=folder, formats=formats, compare=compare, quiet=True)
