"""Reading files of users, line by line: what is wrong with one is said with its name, line and byte."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.data.metering import count, opened
from harness.data.row_groups import batches
from harness.errors import DataError

PACKED = (".gz", ".bz2", ".xz", ".zst")
TABLES = (".parquet", ".arrow")
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a broken archive raises."""
Damaged = Callable[[str], None]
"""Takes what is wrong with an entry that is left out; without one, it is an error."""
_REFUSED = (ValueError, RecursionError)
"""What Python's JSON raises, besides what it says of bad syntax: for an integer of over 4,300 digits, and for
brackets nested too deeply."""
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""How files of other encodings begin; the mark of UTF-32's other order begins as UTF-16's."""
LOOK, ZEROS = 4096, 32
"""Bytes at the beginning of a file by which its encoding is known, and of how many one may be zero."""
CONVERT = "e.g. with iconv"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_COMMA_AT_END = re.compile(r"\s*,\s*([\]}]|$)")


def packed(*endings: str) -> tuple[str, ...]:
    """Endings of names, each also with one of PACKED behind it."""
    return tuple(ending + archive for ending in endings for archive in ("", *PACKED))


LINES = packed(".jsonl", ".ndjson")
"""Endings of JSON Lines."""
ROWS = (*packed(".json"), *LINES, *TABLES)
"""Endings of all files that `read_rows` reads."""


def stem(name: str, endings: tuple[str, ...] = ROWS) -> str:
    """A file's name without the ending that says how it is read."""
    found = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return name[: len(name) - len(found)]


def _ending(path: Path) -> str:
    """What says how a file is read, in small letters: `PART.JSONL.GZ` is one of .gz."""
    return path.suffix.lower()


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """A file's content as a stream, unpacked where its name ends as one of PACKED."""
    opens: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with opened(path) as packed:
        if _ending(path) in opens:
            with opens[_ending(path)](packed, "rb") as file:
                yield file
        elif _ending(path) == ".zst":
            import pyarrow

            yield cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(packed, compression="zstd")))
        else:
            yield packed


def read_bytes(path: Path) -> bytes:
    """Content of a file, unpacked where its name ends as one of PACKED.

    Raises: DataError on a broken archive
    """
    if _ending(path) not in PACKED:
        return path.read_bytes()
    try:
        with open_binary(path) as file:
            return file.read()
    except BROKEN as error:
        raise _broken(path, error) from error


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, newlines as \\n.

    Raises: DataError naming the byte offset of what is not UTF-8, or saying that the file is empty
    """
    return "".join(read_lines(path))


def read_lines(path: Path, *, damaged: Damaged | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, each with its newline (\\n, \\r\\n or \\r) as \\n; a line not in UTF-8 is
    damaged, and so is a file without text.

    Raises: DataError naming line and byte of what is not UTF-8, or a broken archive
    """
    telling = _Telling.of(damaged)
    blank = True
    for line in _decoded(path, telling):
        blank = blank and not line.strip()
        yield line
    if blank:
        _tell_empty(path, "text", telling)


def _decoded(path: Path, damaged: Damaged | None) -> Iterator[str]:
    for number, offset, line in _raw_lines(path, damaged, universal=True):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place = offset + error.start + (3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0)
            _tell(
                f"{path}:{number} is not UTF-8: byte {line[place - offset]:#04x} at offset {place}; "
                f"convert it, {CONVERT}",
                damaged,
                error,
            )
            continue
        yield text.removesuffix("\n").removesuffix("\r") + "\n" if text.endswith(("\n", "\r")) else text


def read_rows(path: Path, *, damaged: Damaged | None = None) -> Iterator[dict[str, Any]]:
    """Objects of a file that ends as one of ROWS: of JSON Lines, of a JSON file that holds a list (or one
    object) of them, of Parquet or of Arrow.

    JSON Lines may be called `.json`; lines are read one after another, whatever the file is called.
    Raises: DataError naming line and byte offset of what is not a JSON object, or a broken table
    """
    yield from (row for _, row in numbered_rows(path, damaged=damaged))


def numbered_rows(path: Path, *, damaged: Damaged | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Like `read_rows`, each with its number from 0; what is damaged keeps its number and is left out, and a
    file without any row is damaged.
    """
    telling = _Telling.of(damaged)
    number = -1
    for number, row in _numbered(path, telling):
        yield number, row
    if number < 0:
        _tell_empty(path, "entries", telling)


def _numbered(path: Path, damaged: Damaged | None) -> Iterator[tuple[int, dict[str, Any]]]:
    if _ending(path) in TABLES:
        yield from _read_table(path, damaged)
    elif path.name.lower().endswith(LINES) or _begins_with_a_row(path):
        yield from _rows_of_lines(path, damaged)
    else:
        try:
            rows = _document(path)
        except DataError as error:
            _tell(str(error), damaged, error)
            return
        for number, row in enumerate(rows):
            if isinstance(row, dict):
                yield number, row
            else:
                _tell(f"{path}: entry {number} is not an object but {type(row).__name__}", damaged)


def _document(path: Path) -> list[Any]:
    """The list that a JSON file holds; one of what it holds where that is no list.

    Raises: DataError where it is no whole JSON file
    """
    text = read_text(path)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {_syntax(error)} at offset {error.pos}") from error
    except _REFUSED as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    return found if isinstance(found, list) else [found]


def _begins_with_a_row(path: Path) -> bool:
    """Whether the first line of a file holds one whole object, or what was meant as one: JSON Lines.

    A line that is the beginning of a longer document breaks off where it ends.
    """
    line = next((line for line in read_lines(path, damaged=lambda what: None) if line.strip()), "").strip()
    if not line.startswith("{"):
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos < len(line)
    except _REFUSED:
        pass
    return True


def _rows_of_lines(path: Path, damaged: Damaged | None) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = 0
    for number, offset, line in _raw_lines(path, damaged):
        if not line.strip(b"\xef\xbb\xbf \t\r\n" if number == 1 else None):
            continue
        row = _row(path, number, offset, line, damaged)
        if row is not None:
            yield entries, row
        entries += 1


def _row(path: Path, number: int, offset: int, line: bytes, damaged: Damaged | None) -> dict[str, Any] | None:
    """The object of a line; None where it is damaged."""
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        if _SURROGATE.search(line):
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        place = offset + error.start
        what = f"byte {line[error.start]:#04x} at offset {place}"
        _tell(f"{path}:{number} is not UTF-8: {what}; convert it, {CONVERT}", damaged, error)
        return None
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        _tell(f"{path}:{number}: {half} is half a surrogate pair, no character", damaged, error)
        return None
    except json.JSONDecodeError as error:
        where = offset + len(error.doc[: error.pos].encode())
        _tell(f"{path}:{number}: not JSON: {_syntax(error)} at byte {where}", damaged, error)
        return None
    except _REFUSED as error:
        _tell(f"{path}:{number}: cannot be read as JSON: {error}", damaged, error)
        return None
    if not isinstance(row, dict):
        _tell(f"{path}:{number}: not an object but {type(row).__name__}, at byte {offset}", damaged)
        return None
    return row


def _syntax(error: json.JSONDecodeError) -> str:
    """What is wrong with a text; a comma too many is called so."""
    before = len(error.doc[: error.pos].rstrip(" \t\r\n,"))
    return "a comma with nothing behind it" if _COMMA_AT_END.match(error.doc, before) else error.msg


def _raw_lines(
    path: Path, damaged: Damaged | None, *, universal: bool = False
) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, byte offset, line) of a file; of a broken archive those before the break.

    Lines end with \\n, as those of JSON do; where `universal`, also with \\r alone.
    """
    offset = 0
    try:
        with open_binary(path) as file:
            if other := _other_encoding(cast(io.BufferedReader, file).peek(LOOK)[:LOOK]):
                _tell(f"{path} {other}, where UTF-8 is read; convert it, {CONVERT}", damaged)
                return
            lines = _split(file) if universal else file
            for number, line in enumerate(lines, start=1):
                yield number, offset, line
                offset += len(line)
    except BROKEN as error:
        if _ending(path) not in PACKED:
            raise
        _tell(str(_broken(path, error)), damaged, error)


def _split(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream, whichever of \\n, \\r\\n and \\r ends each."""
    for line in file:
        if b"\r" in line:
            yield from line.splitlines(keepends=True)
        else:
            yield line


def _other_encoding(first: bytes) -> str:
    """What the first bytes of a file say against UTF-8: marks of other encodings, or so many zeros as only
    UTF-16, UTF-32 and binary files have; nothing where they may be UTF-8."""
    if first.startswith(MARKS):
        return "is in UTF-16 or UTF-32"
    if first.count(0) * ZEROS > len(first):
        return "holds zero bytes, as UTF-16 and binary files do"
    return ""


def _tell(message: str, damaged: Damaged | None, cause: Exception | None = None) -> None:
    """Hand a message on, or raise it."""
    if damaged is None:
        raise DataError(message) from cause
    damaged(message)


@dataclass
class _Telling:
    """Hands messages about one file on, and knows whether there were any."""

    damaged: Damaged
    told: bool = False

    @classmethod
    def of(cls, damaged: Damaged | None) -> _Telling | None:
        return None if damaged is None else cls(damaged)

    def __call__(self, message: str) -> None:
        self.told = True
        self.damaged(message)


def _tell_empty(path: Path, what: str, telling: _Telling | None) -> None:
    """Say that there is nothing in a file, unless it was said why nothing could be read of it."""
    if telling is None or not telling.told:
        _tell(f"{path} is empty; give a file with {what}", telling)


def _broken(path: Path, error: Exception) -> DataError:
    kind = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}[_ending(path)]
    return DataError(f"{path} is not a whole {kind} file: {error}")


def _read_table(path: Path, damaged: Damaged | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows of a Parquet or Arrow file, block after block; of a broken one those before it."""
    import pyarrow

    number = 0
    try:
        for block in _blocks(path):
            for row in _rows_of(block):
                if isinstance(row, UnicodeDecodeError):
                    _tell(f"{path}: row {number} is not UTF-8: {row}", damaged, row)
                else:
                    yield number, row
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        kind = "Parquet" if _ending(path) == ".parquet" else "Arrow"
        _tell(f"{path} is not a whole {kind} file, beyond row {number}: {error}", damaged, error)


def _blocks(path: Path) -> Iterator[Any]:
    """Batches of the rows of a Parquet or Arrow file, so that a large one is never whole in memory."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    size = path.stat().st_size
    if _ending(path) == ".parquet":
        file = ParquetFile(path)
        for batch in batches(file, rows=1024):
            count(size * batch.num_rows / file.metadata.num_rows)
            yield batch
        return
    with pyarrow.memory_map(str(path)) as source:
        try:
            whole = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:  # the format of streams, which `datasets` writes
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)
        else:
            for number in range(whole.num_record_batches):
                count(size / whole.num_record_batches)
                yield whole.get_batch(number)


def _rows_of(block: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a batch; what is wrong with one in place of a row whose text is not UTF-8."""
    try:
        yield from block.to_pylist()
    except UnicodeDecodeError:
        for place in range(block.num_rows):
            try:
                yield block.slice(place, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error


def plain_bytes(paths: list[Path]) -> int | None:
    """Bytes of all these files; None where one is compressed, as only reading it tells."""
    compressed = any(_ending(path) in (*PACKED, *TABLES) for path in paths)
    return None if compressed else sum(path.stat().st_size for path in paths)
