"""Documents on disk: the artifact of the corpus stage."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.axes.corpus import Document, Split
from harness.data.row_groups import batches
from harness.errors import DataError

FILE = "documents.parquet"
ROWS_PER_GROUP = 1024
BYTES_PER_GROUP = 8_000_000
"""Of text that is held at once, at least; a document is never cut."""


class DocumentWriter:
    """Writes documents as Parquet, in groups of rows that do not depend on when they come.

    Raises: DataError if an id occurs twice
    """

    def __init__(self, file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [(name, pa.string()) for name in ("id", "text", "domain", "split")]
        self._schema = pa.schema([*names, ("num_bytes", pa.int64())])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, str | int]] = []
        self._held = 0
        self._digest, self._seen = hashlib.sha256(), set[str]()
        self._bytes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._documents: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, document: Document) -> None:
        """One more."""
        if document.id in self._seen:
            raise DataError(f"two documents have the id '{document.id}'; ids must be unique in a corpus")
        self._seen.add(document.id)
        split, data = document.split.value, document.text.encode()
        self._bytes[split][document.domain] += len(data)
        self._documents[split][document.domain] += 1
        self._digest.update(f"{document.id}\0{document.domain}\0{split}\0{len(data)}\0".encode() + data)
        row = {"id": document.id, "text": document.text, "domain": document.domain, "split": split}
        self._rows.append({**row, "num_bytes": len(data)})
        self._held += len(data)
        if len(self._rows) == ROWS_PER_GROUP or self._held >= BYTES_PER_GROUP:
            self._write()

    def close(self) -> dict[str, Any]:
        """Finish the file; number, bytes and hash of its documents.

        Units: num_bytes counts UTF-8 bytes
        """
        if self._rows:
            self._write()
        self._writer.close()
        return {
            "num_documents": {split: dict(counts) for split, counts in self._documents.items()},
            "num_bytes": {split: dict(counts) for split, counts in self._bytes.items()},
            "sha256": self._digest.hexdigest(),
        }

    def _write(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._held = [], 0


def write(directory: Path, documents: Iterable[Document]) -> dict[str, Any]:
    """Write documents as Parquet; returns their number, bytes and hash.

    Raises: DataError if an id occurs twice
    """
    writer = DocumentWriter(directory / FILE)
    try:
        for document in documents:
            writer.add(document)
    finally:
        facts = writer.close()
    return facts


def iterate(
    directory: Path, split: Split | str | None = None, domain: str | None = None
) -> Iterator[Document]:
    """Documents in the order they were written, of one split and one domain or of all."""
    yield from iterate_file(directory / FILE, split, domain)


def total_bytes(directory: Path) -> int:
    """UTF-8 bytes of all documents; no text is read."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    return int(pc.sum(pq.read_table(directory / FILE, columns=["num_bytes"])["num_bytes"]).as_py() or 0)


def count(file: Path) -> int:
    """Documents of a file; none is read."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def iterate_file(
    path: Path, split: Split | str | None = None, domain: str | None = None
) -> Iterator[Document]:
    """Documents of a file that `DocumentWriter` wrote."""
    import pyarrow.parquet as pq

    wanted = None if split is None else Split(split)
    with pq.ParquetFile(path) as file:
        for batch in batches(file, rows=ROWS_PER_GROUP):
            for row in batch.to_pylist():
                if wanted not in (None, row["split"]) or domain not in (None, row["domain"]):
                    continue
                yield Document(
                    id=row["id"], text=row["text"], domain=row["domain"], split=Split(row["split"])
                )


def read(directory: Path, split: Split | str | None = None) -> list[Document]:
    """All documents of one split, or of all, as a list."""
    return list(iterate(directory, split))


def domains_in_turn(directory: Path, split: Split | str, *, max_bytes: int | None) -> Iterator[Document]:
    """Documents of a split, one of each domain after another, until their bytes reach `max_bytes`.

    What is chosen is held in memory and read in one pass, however many domains there are; None is no limit,
    and then documents come as they were written.
    """
    if max_bytes is None:
        yield from iterate(directory, split)
        return
    order = _in_turn(directory, Split(split), max_bytes)
    wanted, found = set(order), {}
    for row, document in enumerate(iterate(directory)):
        if row in wanted:
            found[row] = document
            if len(found) == len(wanted):
                break
    yield from (found[row] for row in order)


def _in_turn(directory: Path, split: Split, max_bytes: int) -> list[int]:
    """Rows of a split, those of each domain in turn, until `max_bytes`; no text is read."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(directory / FILE, columns=["domain", "split", "num_bytes"])
    row_N = np.flatnonzero(pc.equal(table["split"], split.value).to_numpy())
    domain_N = pc.rank(table["domain"], tiebreaker="min").to_numpy()[row_N]
    by_domain = np.argsort(domain_N, kind="stable")
    starts_N = np.searchsorted(domain_N[by_domain], domain_N)
    turn_N = np.empty(len(row_N), dtype=np.int64)
    turn_N[by_domain] = np.arange(len(row_N))
    turn_N -= starts_N  # how many of its domain stand before it
    order_N = np.lexsort((domain_N, turn_N))
    sizes_N = table["num_bytes"].to_numpy()[row_N][order_N]
    number = int(np.searchsorted(np.cumsum(sizes_N), max_bytes)) + 1
    return [int(row) for row in row_N[order_N][:number]]
