"""An archive of a record with all it rests on: packed from one store, unpacked into another.

An archive may come from anybody: nothing in it leaves the folders it belongs in, replaces what is there, or
is taken for what it does not hash to.
"""

from __future__ import annotations

import errno
import gzip
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from harness.errors import AbsentError, StoreError
from harness.store.artifacts import Store
from harness.store.files import disk_errors, new_file
from harness.store.keys import digest
from harness.store.records import NAME, read_record, record_dir

_PLACES = re.compile(
    r"artifacts(/([0-9a-f]{2})(/\2[0-9a-f]{62}(/[^/]+){0,32})?)?|records(/[^/]+(/[\w.-]+(/[^/]+){0,32})?)?"
)
"""What an archive may hold: `artifacts/<2>/<key>/...` and `records/<sweep>/<cell>/...`."""


_BROKEN = (
    *(tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile),
    *(IsADirectoryError, NotADirectoryError, FileExistsError),
)
"""What reading raises that breaks off or is damaged, or whose files and folders stand in each other's way."""
_NAMES = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""What the operating system says of names that no file can have."""


def pack(store: Store, target: Path, *, where: Path, place: str, keys: Iterable[str]) -> None:
    """Write the archive of a record's folder, which is to stand at `place`, and of artifacts."""
    with disk_errors(target), new_file(target) as draft, tarfile.open(draft, "w:gz") as archive:
        archive.add(where, arcname=place)
        for key in keys:
            archive.add(store.path(key), arcname=f"artifacts/{key[:2]}/{key}")


def unpack(store: Store, source: Path) -> tuple[list[str], list[str], list[str]]:
    """Take an archive into a store; returns the records and artifacts that are new, and what was there.

    Raises: StoreError where the file is no archive of ours, or an artifact is not what its hashes say; then
    nothing was taken
    """
    (store.root / "tmp").mkdir(parents=True, exist_ok=True)
    with (
        disk_errors(store.root),
        tempfile.TemporaryDirectory(dir=store.root / "tmp", prefix="import.") as tmp,
    ):
        _extract(source, Path(tmp))
        from_archive = Store(tmp)
        keys = from_archive.all_keys()
        for key in keys:
            if digest(from_archive.verify(key).meta.get("material")) != key:
                raise StoreError(f"{source}: {key[:12]} is not the key of what its artifact was made of")
        records = [file.parent for file in sorted(Path(tmp).glob(f"records/*/*/{NAME}"))]
        if not keys and not records:
            raise StoreError(f"{source} holds no record and no artifact")
        targets = {folder: _target(store, folder) for folder in records}
        new_keys = [key for key in keys if store.find(key) is None]
        for key in new_keys:
            store.path(key).parent.mkdir(parents=True, exist_ok=True)
            from_archive.path(key).rename(store.path(key))
        new_records = [folder for folder, target in targets.items() if not target.exists()]
        for folder in new_records:
            targets[folder].parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, targets[folder])
        there = [key for key in keys if key not in new_keys]
        there += [_name(targets[folder]) for folder in records if folder not in new_records]
        return [_name(targets[folder]) for folder in new_records], new_keys, there


def unpack_records(source: Path, folder: Path) -> None:
    """Write the records of an archive, without the artifacts, below `<folder>/records`.

    Raises: StoreError where the file is no archive of ours
    """
    with disk_errors(folder):
        _extract(source, folder, below="records")


def _extract(source: Path, folder: Path, *, below: str = "") -> None:
    """Files and folders of an archive, all of them in their places; those below one place alone.

    Raises: AbsentError where there is no such file; StoreError naming the first entry that is not
    """
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                if name in ("", ".") and member.isdir():
                    continue
                strange = not (member.isreg() or member.isdir())
                if strange or not _PLACES.fullmatch(name) or ".." in name.split("/"):
                    raise StoreError(
                        f"{source} is no archive of `harness store export`: it holds {member.name}"
                    )
                if name.startswith(below):
                    archive.extract(member, folder, filter="data")
    except FileNotFoundError:
        raise AbsentError(f"there is no file {source}") from None
    except (*_BROKEN, OSError) as error:
        if not isinstance(error, _BROKEN) and error.errno not in _NAMES:
            raise
        raise StoreError(f"{source} is no archive of `harness store export`: {error}") from error


def _target(store: Store, folder: Path) -> Path:
    """Where a record of an archive will stand.

    Raises: StoreError where it says that it is another's; ConfigError for a sweep's name that is none
    """
    record = read_record(folder)
    target = record_dir(store.root, sweep=record["sweep"], cell=record["cell"])
    if _name(target) != _name(folder):
        raise StoreError(f"the record at {_name(folder)} says that it is {_name(target)}")
    return target


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
