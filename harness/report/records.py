"""Records: what cells yielded, read from a store or from the compact file beside a committed report."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import DataError, NewerFormatError
from harness.forms import misfit
from harness.report.scored import TEXT, Scored
from harness.store.records import FORMAT, check_record, set_aside, sweep_dir, sweep_name
from harness.store.records import records as stored

log = logging.getLogger("harness.report")


@dataclass(eq=False, kw_only=True)
class Record:
    """What one cell yielded: outcome, metrics, measured facts, provenance, samples."""

    data: Mapping[str, Any]
    """The content of record.json."""
    folder: Path | None = None
    """Where it lies, None when it comes from a compact file."""
    embedded: Mapping[str, Scored] = field(default_factory=dict)
    """Samples of a compact file, by `<evaluator>.<task>`."""
    _cache: dict[str, Scored | None] = field(default_factory=dict, repr=False)

    @property
    def cell(self) -> str:
        return str(self.data["cell"])

    @cached_property
    def levels(self) -> dict[str, str]:
        """Factor -> level, both as text."""
        return {str(k): label(v) for k, v in self.data["levels"].items()}

    @property
    def seed(self) -> int:
        return int(self.data["seed"])

    @cached_property
    def status(self) -> str:
        return str(self.data["outcome"]["status"])

    @property
    def reason(self) -> str:
        """Why there is no number, in one line; empty when there is."""
        outcome = self.data["outcome"]
        stage = f" in {outcome['stage']}" if outcome.get("stage") else ""
        step = f" at step {outcome['step']}" if outcome.get("step") is not None else ""
        text = " ".join(str(outcome.get("reason") or "").split())
        return f"{self.status}{stage}{step}" + (f": {text}" if text else "")

    @cached_property
    def leaves(self) -> tuple[tuple[str, Any], ...]:
        """The config as dotted paths and values."""
        return tuple(flatten(self.data["config"]))

    @property
    def finished(self) -> str:
        return str(self.data.get("provenance", {}).get("finished", ""))

    @property
    def experiment(self) -> Mapping[str, Any]:
        value = self.data["experiment"]
        assert isinstance(value, Mapping)
        return value

    @property
    def sample_names(self) -> list[str]:
        if self.folder is None:
            return sorted(self.embedded)
        return sorted(path.stem for path in (self.folder / "samples").glob("*.parquet"))

    def samples(self, name: str) -> Scored | None:
        """Items of `<evaluator>.<task>`, read once; None where not kept, or damaged, which is named and set
        aside.
        """
        if name in self.embedded:
            return self.embedded[name]
        if self.folder is None:
            return None
        if name not in self._cache:
            self._cache[name] = self._read_samples(self.folder / "samples" / f"{name}.parquet")
        return self._cache[name]

    def _read_samples(self, path: Path) -> Scored | None:
        try:
            return Scored.read(path) if path.exists() else None
        except DataError as error:
            log.warning("%s (%s)", error, set_aside(path.parents[4], path))
            return None


def label(level: object) -> str:
    """A level as it is printed and compared: `none` for null, `true`, 8, 0.1, `lora`."""
    if level is None:
        return "none"
    if isinstance(level, bool):
        return str(level).lower()
    if isinstance(level, Mapping | list | tuple):
        return json.dumps(level, sort_keys=True)
    return str(level)


def visible(text: str) -> str:
    """A label as a reader tells it from others: quoted where it is empty or holds what is not seen."""
    if text and text == text.strip() and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a config as dotted paths; a list is a leaf."""
    if not (isinstance(node, dict) and node):
        yield path, node
        return
    # One generator for all levels: one a level hands every leaf up through all those above it.
    open_nodes = [(f"{path}." if path else "", iter(node.items()))]
    while open_nodes:
        prefix, items = open_nodes[-1]
        for key, value in items:
            if isinstance(value, dict) and value:
                open_nodes.append((f"{prefix}{key}.", iter(value.items())))
                break
            yield f"{prefix}{key}", value
        else:
            open_nodes.pop()


def store_root(store: object = None) -> Path:
    """The store's directory: a Store, a path, `$HARNESS_STORE`, or `.harness` here."""
    root = store if isinstance(store, str | Path) else getattr(store, "root", None)
    return Path(root or os.environ.get("HARNESS_STORE") or ".harness")


def read(store: object, experiment: str, *, cells: Iterable[str] | None = None) -> list[Record]:
    """All records of an experiment, oldest first; `cells` keeps only those ids.

    `store` may also be a compact file (`records.json.gz`).
    Raises: DataError if there is none, naming the experiments that have some
    """
    root = store_root(store)
    experiment = sweep_name(experiment)
    records = read_compact(root) if root.suffix in (".gz", ".json") else read_folder(root, experiment)
    records = [r for r in records if experiment in (r.experiment.get("name"), r.data.get("sweep"))]
    if cells is not None:
        wanted = set(cells)
        records = [r for r in records if r.cell in wanted]
    if not records:
        known = ", ".join(experiments(root)) or "none"
        raise DataError(
            f"There are no records of experiment '{experiment}' in {root}. With records: {known}. "
            f"Run `harness sweep experiment={experiment}` first, or name another store."
        )
    return sorted(records, key=lambda r: (r.finished, r.cell))


def experiments(root: Path) -> list[str]:
    """Names of the sweeps that have records."""
    if root.is_file():
        return sorted({str(r.experiment.get("name")) for r in read_compact(root)})
    return sorted(p.name for p in (root / "records").glob("*") if any(p.glob("*/record.json")))


def read_folder(root: Path, experiment: str) -> list[Record]:
    """Records below `<root>/records/<experiment>`, or of any sweep where that folder is absent.

    A damaged one is set aside and named; its cell is missing from the report.
    Raises: NewerFormatError
    """
    sweep = experiment if sweep_dir(root, experiment).is_dir() else None
    return [Record(data=data, folder=folder) for folder, data in stored(root, sweep=sweep)]


IN_STORE = "$HARNESS_STORE"
"""What the path of a store is written as where its records leave it."""


def write_compact(
    records: Sequence[Record], path: Path, *, shown: Mapping[str, Sequence[str]], root: Path | None = None
) -> None:
    """All that a report needs in one file: records, per-item values, texts of the `shown` items by task.

    The same records give the same bytes (no time stamp), and paths below the store at `root` are written from
    there, so that the file can be committed.
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
    if root is not None and root.is_absolute():
        content = content.replace(json.dumps(f"{root}/")[1:-1], f"{IN_STORE}/")
    data = content.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def texts_of(values: Sequence[Any], rows: Mapping[int, int]) -> dict[str, str]:
    """Texts of a column by the item's number, given the row of each."""
    return {str(number): str(values[row]) for number, row in rows.items()}


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
