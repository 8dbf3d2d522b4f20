"""`harness store`: what the store holds, who uses it, what may go, and packing a record for somebody else."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.errors import ConfigError, CorruptArtifactError, StoreError, UnknownNameError
from harness.plan.manifest import find_record, manifests
from harness.report.numbers import counted
from harness.store import Artifact, Store, archive
from harness.store.records import records, sweep_name

HELP = """usage: harness store ls | gc [--dry-run] | verify | export RECORD FILE.tar.gz | import FILE

  ls       every artifact: stage, size, age, and how many records rest on it
  gc       removes artifacts that no record and no planned sweep needs, and what killed processes left
  verify   hashes every file again; damaged artifacts are moved aside and built again by the next run
  export   packs a record with all it rests on
  import   takes such a file into this store; what it holds is checked, and replaces nothing"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "ls": (),
    "gc": (),
    "verify": (),
    "export": ("a record (demo/0123abcd)", "a file (out.tar.gz)"),
    "import": ("a file that `harness store export` wrote",),
}
"""What each takes, word by word."""
_ABANDONED = 3600.0
"""Seconds after which a temporary directory without a claim was left by a killed process."""


def main(arguments: Sequence[str]) -> int:
    """Run one of the store's commands.

    Raises: UnknownNameError, ConfigError for a command line that says nothing; StoreError
    """
    if not arguments or {"-h", "--help"} & {*arguments}:
        print(HELP)
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise UnknownNameError(what="store command", name=command, known=COMMANDS)
    words = [text for text in rest if not text.startswith("-")]
    for flag in rest:
        if flag.startswith("-") and not (command == "gc" and flag == "--dry-run"):
            takes = "--dry-run alone" if command == "gc" else "no flags"
            raise ConfigError(f"{flag} is no flag of `harness store {command}`, which takes {takes}")
    if len(words) != len(COMMANDS[command]):
        raise ConfigError(
            f"harness store {command} takes {' and '.join(COMMANDS[command]) or 'no words'}, not "
            f"{' '.join(words) or 'none'}"
        )
    store = Store()
    if command == "ls":
        return ls(store)
    if command == "gc":
        return gc(store, dry_run="--dry-run" in rest)
    if command == "verify":
        return verify(store)
    if command == "export":
        return export(store, words[0], Path(words[1]))
    return take(store, Path(words[0]))


def ls(store: Store) -> int:
    """Print every artifact with its size and its users."""
    users = uses(store)
    table = Table("key", "stage", "kind", "size", "days old", "records")
    sizes: Counter[str] = Counter()
    for key in store.all_keys():
        artifact = store.find(key)
        if artifact is None:
            continue
        size = size_of(artifact)
        sizes[artifact.stage] += size
        age = (time.time() - artifact.meta["created"]) / 86400
        title = f"{artifact.stage} {artifact.meta.get('part', '')}".strip()
        table.add_row(key[:12], title, artifact.kind, _size(size), f"{age:.1f}", str(users[key]))
    console = Console()
    console.print(table)
    for stage, size in sizes.most_common():
        console.print(f"{stage}: {_size(size)}", highlight=False)
    console.print(
        f"{store.root}: {_size(sum(sizes.values()))} in {counted(table.row_count, 'artifact')}",
        highlight=False,
    )
    return 0


def gc(store: Store, *, dry_run: bool = False) -> int:
    """Remove what no record and no planned sweep rests on."""
    needed = set(uses(store)) | _planned(store)
    if not dry_run:
        store.claims.release_dead(store.claims.names())
    claimed = set(store.claims.names())
    freed, number = 0, 0
    for key in store.all_keys():
        artifact = store.find(key)
        if artifact is None or key in needed or key in claimed:
            continue
        freed += size_of(artifact)
        number += 1
        if not dry_run:
            _remove(artifact.path)
    leftovers = [*_leftovers(store, claimed)]
    for path in leftovers:
        freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if not dry_run:
            _remove(path)
    verb = "would be removed" if dry_run else "removed"
    print(f"{counted(number, 'artifact')} and {counted(len(leftovers), 'leftover')} {verb}: {_size(freed)}")
    return 0


def _remove(path: Path) -> None:
    """A folder with all that is in it; of a file or a link, that alone."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def verify(store: Store) -> int:
    """Hash everything again; exit code 1 where something was damaged."""
    damaged = 0
    keys = store.all_keys()
    for key in keys:
        try:
            store.verify(key)
        except CorruptArtifactError as error:
            damaged += 1
            print(error)
    print(f"{counted(len(keys), 'artifact')}, {damaged} damaged")
    return 1 if damaged else 0


def export(store: Store, name: str, target: Path) -> int:
    """Pack a record with every artifact it rests on; of a cell that failed, as far as it came.

    Raises: StoreError where the record, or an artifact of a cell that ended well, is missing
    """
    where, record = find_record(store.root, name)
    keys = closure(store, (stage["key"] for stage in record["stages"]))
    there = [key for key in keys if store.find(key) is not None]
    missing = [key for key in keys if key not in there]
    if missing and record["outcome"]["status"] == "ok":
        raise StoreError(
            f"{name} rests on {counted(len(missing), 'artifact')} no longer there ({missing[0][:12]} first); "
            "run its sweep again first"
        )
    place = f"records/{sweep_name(record['sweep'])}/{record['cell']}"
    archive.pack(store, target, where=where, place=place, keys=there)
    print(
        f"{target}: {record['sweep']}/{record['cell']} with {counted(len(there), 'artifact')}; "
        f"`harness store import {target}` takes it into another store"
    )
    return 0


def take(store: Store, source: Path) -> int:
    """Unpack what `export` packed.

    Raises: StoreError where the file is none of those, or damaged
    """
    records, keys, there = archive.unpack(store, source)
    new = f"{', '.join(records) or 'no record'} with {counted(len(keys), 'artifact')}"
    print(f"new: {new}; {len(there)} were there")
    return 0


def uses(store: Store) -> Counter[str]:
    """How many records rest on each artifact, directly or through others."""
    found: Counter[str] = Counter()
    for _, record in records(store.root):
        found.update(closure(store, (stage["key"] for stage in record["stages"])))
    return found


def closure(store: Store, keys: Iterable[str]) -> list[str]:
    """Keys with everything that they were made from, as far as the store has it; inputs first."""
    found: dict[str, None] = {}

    def visit(key: str) -> None:
        if key in found or ":" in key:
            return
        artifact = store.find(key)
        for needed in artifact.inputs.values() if artifact is not None else ():
            visit(needed)
        found[key] = None

    for key in keys:
        visit(key)
    return list(found)


def size_of(artifact: Artifact) -> int:
    """Bytes of an artifact's files."""
    return sum(int(file["size"]) for file in artifact.meta["files"].values())


def _planned(store: Store) -> set[str]:
    return {key for manifest in manifests(store.root) for key in manifest["stages"]}


def _leftovers(store: Store, claimed: set[str]) -> Iterable[Path]:
    """What killed processes left: temporary files, checkpoints nobody will resume, damaged artifacts."""
    planned = _planned(store)
    for folder in ("tmp", "partial", "corrupt"):
        for path in (store.root / folder).glob("*"):
            key = path.name.partition(".")[0]
            old = time.time() - path.stat().st_mtime > _ABANDONED
            if folder == "corrupt" or (
                key not in claimed and old and (folder == "tmp" or key not in planned)
            ):
                yield path


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
