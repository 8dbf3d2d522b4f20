"""Whether a report on disk still is what its records give: a content hash of all that it is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.layout import shipped
from harness.report.record import Record
from harness.store.files import read_json, sha256_file, write_json
from harness.store.fingerprint import Fingerprints, versions


def inputs(records: Sequence[Record], root: Path) -> str:
    """Hash of records, samples, layouts, and the code and libraries that make a report of them.

    `root` is the store whose cache of fingerprints is used; nothing is imported.
    """
    files = [file for record in records if record.folder is not None for file in files_of(record.folder)]
    made_of: list[Any] = [[file.name, sha256_file(file)] for file in files]
    made_of += [[file.name, sha256_file(file)] for file in shipped().values()]
    made_of += [
        [file.name, sha256_file(file)] for file in sorted((Path(__file__).parent / "assets").iterdir())
    ]
    fingerprints = Fingerprints(root / "cache" / "fingerprints.json")
    code = fingerprints.of(["harness.report.making"])
    fingerprints.save()
    made_of += [code.sha256, versions(code.libraries)]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def files_of(record: Path) -> list[Path]:
    """What a report reads of a record's folder."""
    return [record / "record.json", *sorted((record / "samples").glob("*.parquet"))]


def outputs(folder: Path) -> str:
    """Hash of a report's files; an edited or deleted one is noticed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [[str(file.relative_to(folder)), sha256_file(file)] for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def holds(folder: Path, *, made_of: str, root: Path) -> bool:
    """Whether the report in `folder` was made of exactly this, and nobody touched it since."""
    return folder.is_dir() and known(root).get(str(folder.resolve())) == [made_of, outputs(folder)]


def remember(folder: Path, *, made_of: str, root: Path) -> None:
    """Note what the report in `folder` was made of."""
    write_json(cache_file(root), {**known(root), str(folder.resolve()): [made_of, outputs(folder)]})


def known(root: Path) -> dict[str, Any]:
    """Folder -> [what it was made of, what was written]; empty where nothing readable is noted."""
    try:
        return read_json(cache_file(root), dict[str, list[str]])
    except (OSError, ValueError):
        return {}


def cache_file(root: Path) -> Path:
    return root / "cache" / "reports.json"
