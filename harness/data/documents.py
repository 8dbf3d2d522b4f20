"""Documents on disk: the artifact of the corpus stage."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.axes.corpus import Document, Split

FILE = "documents.parquet"
ROWS_PER_GROUP = 1024


def write(directory: Path, documents: Iterable[Document]) -> dict[str, Any]:
    """Write documents as Parquet; returns their number, bytes and hash.

    Units: num_bytes counts UTF-8 bytes
    Raises: DataError if an id occurs twice
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from harness.errors import DataError

    fields = [(name, pa.string()) for name in ("id", "text", "domain", "split")]
    num_bytes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    num_documents: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    digest, seen = hashlib.sha256(), set()
    rows: list[dict[str, str]] = []
    with pq.ParquetWriter(directory / FILE, pa.schema(fields), compression="zstd") as writer:
        for document in documents:
            if document.id in seen:
                raise DataError(f"two documents have the id '{document.id}'; ids must be unique in a corpus")
            seen.add(document.id)
            split, data = document.split.value, document.text.encode()
            num_bytes[split][document.domain] += len(data)
            num_documents[split][document.domain] += 1
            digest.update(f"{document.id}\0{document.domain}\0{split}\0{len(data)}\0".encode() + data)
            rows.append({"id": document.id, "text": document.text, "domain": document.domain, "split": split})
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)))
    return {
        "num_documents": {split: dict(counts) for split, counts in num_documents.items()},
        "num_bytes": {split: dict(counts) for split, counts in num_bytes.items()},
        "sha256": digest.hexdigest(),
    }


def iterate(
    directory: Path, split: Split | str | None = None, domain: str | None = None
) -> Iterator[Document]:
    """Documents in the order they were written, of one split and one domain or of all."""
    import pyarrow.parquet as pq

    wanted = None if split is None else Split(split)
    with pq.ParquetFile(directory / FILE) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            for row in batch.to_pylist():
                if wanted not in (None, row["split"]) or domain not in (None, row["domain"]):
                    continue
                yield Document(
                    id=row["id"], text=row["text"], domain=row["domain"], split=Split(row["split"])
                )


def read(directory: Path, split: Split | str | None = None) -> list[Document]:
    """All documents of one split, or of all, as a list."""
    return list(iterate(directory, split))


def domains_in_turn(directory: Path, split: Split | str) -> Iterator[Document]:
    """Documents of a split, one of each domain after another, so that a prefix holds all domains."""
    import pyarrow.parquet as pq

    column = pq.read_table(directory / FILE, columns=["domain"]).column("domain")
    turns = [iterate(directory, split, domain) for domain in sorted(column.unique().to_pylist())]
    for row in zip_longest(*turns):
        yield from (document for document in row if document is not None)
