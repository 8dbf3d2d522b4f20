"""Committed reports, made again from the records that lie beside them; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.compose import config_dir
from harness.errors import DataError
from harness.report.compact import RECORDS
from harness.report.making import PUBLISHED, report
from harness.report.writers import FORMATS


def rebuild(root: Path, *, only: str | None = None, formats: Sequence[str] = FORMATS) -> Iterator[Path]:
    """Folders of the reports below `root`, each after it was written again.

    A report that showed published values shows them again. The records themselves stay as they are; claims
    have the words of the shipped experiment where it makes them still.
    Raises: DataError where there is none to rebuild
    """
    files = sorted(root.glob(f"{only or '*'}/{RECORDS}"))
    if not files:
        raise DataError(f"There is no {root / (only or '*') / RECORDS}: no committed report to rebuild")
    for file in files:
        folder = file.parent
        compare = PUBLISHED if (folder / "published.json").exists() else None
        options: dict[str, Any] = {"store": file, "out": folder, "formats": formats, "compare": compare}
        yield report(folder.name, **options, findings=findings(folder.name), quiet=True)


def findings(experiment: str) -> dict[str, str]:
    """What the shipped experiment of a name finds, by what its claims say; nothing where none is shipped."""
    file = config_dir() / "experiment" / f"{experiment}.yaml"
    if not file.exists():
        return {}
    claims = OmegaConf.to_container(OmegaConf.load(file)).get("claims") or ()  # type: ignore[union-attr]
    stated = [claim for claim in claims if isinstance(claim, dict)]
    return {claim["says"]: claim["finding"] for claim in stated if "finding" in claim}
