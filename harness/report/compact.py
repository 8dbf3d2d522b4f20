"""Records in one file, beside a committed report: all that the report is made of, and nothing else."""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import DataError, NewerFormatError
from harness.forms import misfit
from harness.report.record import Record
from harness.report.scored import TEXT, Scored
from harness.store.files import write_whole
from harness.store.records import FORMAT, check_record

RECORDS = "records.json.gz"
"""The file's name beside a committed report."""
IN_STORE = "$HARNESS_STORE"
"""What the path of a store is written as where its records leave it."""
DATA = "HARNESS_DATA"
"""The variable that names the folder of a user's data; paths below it are written from there."""


def write_compact(
    records: Sequence[Record], path: Path, *, shown: Mapping[str, Sequence[str]], roots: Sequence[Path] = ()
) -> None:
    """All that a report needs in one file: records, per-item values, texts of the `shown` items by task.

    The same records give the same bytes (no time stamp), and paths below the stores at `roots` and below the
    folder of data are written from there, so that the file can be committed.
    """
    documents: dict[str, dict[str, int]] = {}
    wanted = defaultdict(set, {name: set(docs) for name, docs in shown.items()})
    rows = []
    for record in records:
        samples: dict[str, Any] = {}
        for name in record.sample_names:
            items = record.samples(name)
            if items is None or "doc_hash" not in items:
                continue
            known = documents.setdefault(name, {})
            docs = items.docs.tolist()
            rows_shown = [row for row, doc in enumerate(docs) if doc in wanted[name]]
            samples[name] = {
                "docs": [known.setdefault(doc, len(known)) for doc in docs],
                "values": {c: [plain(v) for v in items.numbers(c).tolist()] for c in items.numeric},
                "texts": {
                    c: texts_of(items.values(c).tolist(), {known[docs[row]]: row for row in rows_shown})
                    for c in TEXT
                    if c in items
                },
            }
        rows.append({**record.data, "samples": samples})
    # Keys keep their order: that of `factors` and of its levels is the order of the table.
    names = {name: list(known) for name, known in documents.items()}
    content = json.dumps({"format": FORMAT, "documents": names, "records": rows}, separators=(",", ":"))
    places = [*((root, IN_STORE) for root in roots), (Path(os.environ.get(DATA, "")), f"${DATA}")]
    for root, name in places:
        if root.is_absolute():
            content = content.replace(json.dumps(f"{root}/")[1:-1], f"{name}/")
    data = content.encode()
    write_whole(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def texts_of(values: Sequence[Any], rows: Mapping[int, int]) -> dict[str, str]:
    """Texts of a column by the item's number, given the row of each, as far as they were kept."""
    return {str(number): str(values[row]) for number, row in rows.items() if values[row] is not None}


class Items(TypedDict):
    """Samples of a record in a compact file; `docs` are places in the file's list of documents."""

    docs: list[int]
    values: dict[str, list[float | None]]
    texts: dict[str, dict[str, str]]


class Compact(TypedDict):
    """A compact file."""

    format: int
    documents: dict[str, list[str]]
    records: list[dict[str, Any]]


def read_compact(path: Path) -> list[Record]:
    """The records of a compact file.

    Raises: DataError if it is not one
    """
    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(f"{path} is not a file of records: {error!r}") from error
    if wrong := misfit(content, Compact):
        raise DataError(f"{path} is not a file of records: {wrong}")
    if content["format"] > FORMAT:
        raise NewerFormatError(
            f"{path} is of format {content['format']}; this harness reads {FORMAT}: upgrade it"
        )
    return [
        _of_row(row, content["documents"], where=f"{path}: record {place}")
        for place, row in enumerate(content["records"])
    ]


def _of_row(row: dict[str, Any], documents: Mapping[str, list[str]], *, where: str) -> Record:
    """A record of a compact file.

    Raises: DataError if it is none
    """
    samples = row.pop("samples", {})
    try:
        check_record(row)
    except ValueError as error:
        raise DataError(f"{where} is none: {error}") from error
    if wrong := misfit(samples, dict[str, Items], "samples"):
        raise DataError(f"{where} is none: {wrong}")
    embedded = {}
    for name, part in samples.items():
        lengths = {len(part["docs"]), *map(len, part["values"].values())}
        known = documents.get(name, [])
        if len(lengths) > 1 or not all(0 <= i < len(known) for i in part["docs"]):
            raise DataError(f"{where} is none: samples.{name} has not one value for each of its documents")
        columns: dict[str, Any] = {"doc_hash": [known[i] for i in part["docs"]], **part["values"]}
        for column, texts in part["texts"].items():
            columns[column] = [texts.get(str(i)) for i in part["docs"]]
        embedded[name] = Scored.of(columns)
    return Record(data=row, embedded=embedded)


def plain(value: float) -> float | int | None:
    """A number as JSON keeps it, exactly: whole ones as int, NaN and infinities as null.

    Exactly, so that a report made from the store and one made from its compact file are the same.
    """
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value
