"""File operations that the store rests on: hashes, atomic writes, and what the disk's errors mean."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import NewerFormatError, StoreError, StoreFullError
from harness.forms import misfit

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LARGE_WORDS = ("os error 27", "[errno 27]")
_FULL_WORDS = (
    *("no space left on device", "os error 28", "disk quota exceeded", "os error 122"),
    *_LARGE_WORDS,
)
_LIMIT = "as `ulimit -f` shows, or the file system; raise it"
_ROOM = 64 * 1024
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
log = logging.getLogger("harness.store")


class Versioned(TypedDict):
    """A file that states its format."""

    format: int


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, form: Any, *, newest: int | None = None) -> dict[str, Any]:
    """A JSON object of a form (see `harness.forms`); a file that a crash, a disk or a hand cut has none.

    `newest` is the last `format` that is known, of a file that states one.
    Raises: FileNotFoundError; NewerFormatError; ValueError saying in words what is wrong with the file
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except (OSError, ValueError) as error:
        raise ValueError(str(error)) from error
    if newest is not None and not misfit(value, Versioned) and value["format"] > newest:
        raise NewerFormatError(
            f"{path} was written by a newer version of harness (format {value['format']}, this one reads "
            f"{newest}); upgrade harness, or use another HARNESS_STORE"
        )
    wrong = misfit(value, dict) or misfit(value, form)
    if wrong:
        raise ValueError(wrong)
    return value  # type: ignore[no-any-return]


def read_cache(path: Path) -> dict[str, list[Any]]:
    """File -> [size, time in ns, what was found in it]; empty, or without an entry, where it is damaged."""
    try:
        found = read_json(path, dict)
    except (OSError, ValueError):
        return {}
    return {
        name: entry
        for name, entry in found.items()
        if isinstance(entry, list) and len(entry) > 2 and all(isinstance(n, int) for n in entry[:2])
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part.

    Raises: StoreFullError, StoreError where the store is read-only
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            _take_place(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which stands at `target` once everything is in it; otherwise nothing does.

    Raises: StoreError where something is there already
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is there already, and not an empty folder; name one that is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    try:
        yield draft
        os.replace(draft, target)  # takes the place of an empty folder, never of a full one
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `target` once it is whole."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        _take_place(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text in UTF-8, or bytes; what stood there stays until all of it is written."""
    with new_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def _take_place(draft: Path, target: Path) -> None:
    """Put a file in its place; a folder that stands there is moved beside it, and named."""
    try:
        os.replace(draft, target)
    except IsADirectoryError:
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        target.rename(aside)
        log.warning("%s was a folder, where a file belongs; it was moved to %s", target, aside)
        os.replace(draft, target)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one it was raised from, says that the disk is full.

    Libraries (safetensors, Arrow, torch) wrap the operating system's error in their own types.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StoreFullError):
            return True
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error).lower() for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_text(error: BaseException) -> str:
    """What a full disk means for people, whoever noticed it."""
    if isinstance(error, StoreFullError):
        return str(error)
    if _is_too_large(error):
        return f"a file is full ({error}), by the limit on its size {_LIMIT} and run the same command again"
    return f"a disk is full ({error}); free space and run the same command again"


def _is_too_large(error: BaseException) -> bool:
    """Whether the limit on one file's size was met, and not the disk's."""
    number = error.errno if isinstance(error, OSError) else None
    return number == errno.EFBIG or any(words in str(error).lower() for words in _LARGE_WORDS)


def has_no_room(folder: Path) -> bool:
    """Whether a folder's disk is full: what could not even write its error there can say nothing else."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < _ROOM


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do.

    Raises: StoreFullError, StoreError
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if _is_too_large(error):
            raise StoreFullError(
                f"A file under {where} is full, by the limit on its size {_LIMIT} and run the same command "
                "again; nothing that was finished is lost"
            ) from error
        if is_disk_full(error):
            raise StoreFullError(
                f"The disk under {where} is full. Free space (`harness store gc` removes what no record "
                "needs) and run the same command again; nothing that was finished is lost"
            ) from error
        if error.errno in _READ_ONLY:
            raise StoreError(
                f"Cannot write to {where}: {error.strerror}. Set HARNESS_STORE to a directory that you may "
                "write to"
            ) from error
        raise
