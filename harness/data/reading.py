"""Reading files of users: what is wrong with one is said with its name, line and byte."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import DataError


def read_bytes(path: Path) -> bytes:
    """Content of a file, unpacked where its name ends in .gz.

    Raises: DataError on a broken archive
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}") from error


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, newlines as \\n.

    Raises: DataError naming the byte offset of what is not UTF-8, or saying that the file is empty
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path} is not UTF-8: byte {data[offset]:#04x} at offset {offset}; convert it, e.g. with iconv"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON Lines file, of a JSON file that holds a list (or one object) of them, or of Parquet.

    Raises: DataError naming line and byte offset of what is not a JSON object, or a broken Parquet file
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    text = read_text(path)
    if not path.name.removesuffix(".gz").endswith(".jsonl"):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            if "\n{" not in text.strip():
                raise DataError(
                    f"{path}:{error.lineno}: not JSON: {error.msg} at offset {error.pos}"
                ) from error
        else:
            rows = rows if isinstance(rows, list) else [rows]
            for number, row in enumerate(rows):
                if not isinstance(row, dict):
                    raise DataError(f"{path}: entry {number} is not an object but {type(row).__name__}")
                yield row
            return
    offset = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                where = offset + len(line[: error.pos].encode())
                raise DataError(f"{path}:{number}: not JSON: {error.msg} at byte {where}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: not an object but {type(row).__name__}, at byte {offset}")
            yield row
        offset += len(line.encode()) + 1


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, in blocks, so that a large file is never whole in memory."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        for block in ParquetFile(path).iter_batches(batch_size=1024):
            yield from block.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}") from error


def plain_bytes(paths: list[Path]) -> int | None:
    """Bytes of all these files; None where one is compressed, as only reading it tells."""
    compressed = any(path.suffix == ".gz" for path in paths)
    return None if compressed else sum(path.stat().st_size for path in paths)
