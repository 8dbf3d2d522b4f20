"""The store: artifacts in directories named by the hash of everything that determined them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

from harness.errors import ConfigError, CorruptArtifactError, StoreError, StoreFullError
from harness.store.claims import Claim, Claims
from harness.store.files import disk_errors, is_disk_full, read_json, sha256_file, write_json
from harness.store.recorded import Described

FORMAT = 1
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What the system says of a file that is not there, or is a link to nowhere."""
log = logging.getLogger("harness.store")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a stage produced: a directory, and what is known of it."""

    key: str
    path: Path
    stage: str
    """The stage that made it; `external` for a model directory from outside the store."""
    kind: str
    inputs: dict[str, str]
    """Keys of what it was made from, by the name of the input."""
    facts: dict[str, Any]
    """What the stage measured."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Everything else artifact.json holds: files, material of the key, seconds, seed."""


class Store:
    """Artifacts, claims and records below one directory; any number of processes may share it.

    State: `artifacts/` is written by rename only, so what stands there is complete; `partial/` holds
    checkpoints of unfinished stages, `tmp/` what is being written, `corrupt/` what did not match its hash
    Raises: ConfigError where a file stands in the place of the directory, or of one above it
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("HARNESS_STORE") or ".harness").absolute()
        there = next(place for place in (self.root, *self.root.parents) if os.path.exists(place))
        if not there.is_dir():
            raise ConfigError(f"No store at {self.root}: {there} is no folder; name one, HARNESS_STORE=DIR")
        self.claims = Claims(self.root / "claims")

    def path(self, key: str) -> Path:
        """Where the artifact of `key` stands or would stand."""
        return self.root / "artifacts" / key[:2] / key

    def find(self, key: str) -> Artifact | None:
        """The artifact of `key`, or None where there is none or it was damaged and moved aside.

        Sizes are always compared; content is hashed again where a file's time differs from the recorded one.
        """
        try:
            return self._read(key, rehash=False)
        except FileNotFoundError:
            return None
        except CorruptArtifactError as error:
            log.warning("%s", error)
            return None

    def get(self, key: str) -> Artifact:
        """The artifact of `key`.

        Raises: StoreError where there is none
        """
        artifact = self.find(key)
        if artifact is None:
            raise StoreError(f"No artifact {key} in {self.root}; run the sweep that makes it again")
        return artifact

    def verify(self, key: str) -> Artifact:
        """The artifact of `key` with every file hashed again.

        Raises: CorruptArtifactError, having moved the damaged one aside; StoreError where there is none
        """
        try:
            return self._read(key, rehash=True)
        except FileNotFoundError:
            raise StoreError(f"No artifact {key} in {self.root}") from None

    def all_keys(self) -> list[str]:
        """Keys of all artifacts, sorted."""
        return sorted(path.name for path in (self.root / "artifacts").glob("??/*") if path.is_dir())

    @contextlib.contextmanager
    def create(
        self, key: str, *, stage: str, kind: str, inputs: Mapping[str, str], meta: dict[str, Any]
    ) -> Iterator[Path]:
        """A directory to fill; it becomes the artifact when the block ends without an error.

        `meta` is read at the end of the block, so facts may be put into it until then.
        Raises: StoreFullError, StoreError where the store is read-only
        """
        temporary = self.root / "tmp" / f"{key}.{uuid.uuid4().hex[:8]}"
        with disk_errors(self.root):
            temporary.mkdir(parents=True)
        try:
            try:
                yield temporary
            except Exception as error:
                if is_disk_full(error) and not isinstance(error, StoreError):
                    raise StoreFullError(
                        f"A disk is full ({error}). Free space under {self.root} (`harness store gc` removes "
                        "what no record needs) and run the same command again"
                    ) from error
                raise
            with disk_errors(self.root):
                described = {
                    "format": FORMAT,
                    "key": key,
                    "stage": stage,
                    "kind": kind,
                    "inputs": dict(inputs),
                    "files": _describe(temporary),
                    "created": time.time(),
                    **meta,
                }
                write_json(temporary / "artifact.json", described)
                self._land(temporary, key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def checkpoints(self, key: str) -> Path:
        """A directory for the unfinished stage of `key`; survives kills, goes when the artifact lands."""
        path = self.root / "partial" / key
        with disk_errors(self.root):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def claim(self, key: str) -> Claim | None:
        """The right to make `key`, or None while another living process has it."""
        claim = self.claims.acquire(key)
        if claim is not None:
            self.clear(key)
        return claim

    def clear(self, key: str) -> None:
        """Remove what an attempt at `key` that was killed was writing; whoever does has the claim."""
        for leftover in (self.root / "tmp").glob(f"{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _land(self, temporary: Path, key: str) -> None:
        final = self.path(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(temporary, final)
        except OSError:
            # Another process landed the same key first: same key, same content.
            if not (final / "artifact.json").exists():
                raise
        shutil.rmtree(self.root / "partial" / key, ignore_errors=True)

    def _read(self, key: str, *, rehash: bool) -> Artifact:
        path = self.path(key)
        try:
            described = read_json(path / "artifact.json", Described, newest=FORMAT)
            files = _files(described["files"])
        except FileNotFoundError:
            if path.is_dir() or path.is_symlink():
                raise self._corrupt(key, "artifact.json is missing") from None
            raise
        except ValueError as error:
            raise self._corrupt(key, f"artifact.json is unreadable ({error})") from None
        if described.get("key", key) != key:
            raise self._corrupt(key, f"it is another's, {described['key'][:12]}")
        for name, expected in files.items():
            self._check_file(key, path / name, expected, rehash=rehash)
        known = ("key", "stage", "kind", "inputs", "facts")
        return Artifact(
            key=key,
            path=path,
            stage=described["stage"],
            kind=described["kind"],
            inputs=described["inputs"],
            facts=described.get("facts", {}),
            meta={name: value for name, value in described.items() if name not in known},
        )

    def _check_file(self, key: str, path: Path, expected: dict[str, Any], *, rehash: bool) -> None:
        try:
            stat = path.stat()
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            raise self._corrupt(key, f"{path.name} is missing") from None
        if not S_ISREG(stat.st_mode):
            raise self._corrupt(key, f"{path.name} is no file")
        if stat.st_size != expected["size"]:
            raise self._corrupt(key, f"{path.name} has {stat.st_size} bytes instead of {expected['size']}")
        touched = stat.st_mtime_ns != expected["mtime_ns"]
        if (rehash or touched) and sha256_file(path) != expected["sha256"]:
            raise self._corrupt(key, f"the content of {path.name} does not match its hash")
        if touched:
            with contextlib.suppress(OSError, OverflowError):
                os.utime(path, ns=(stat.st_atime_ns, expected["mtime_ns"]))

    def _corrupt(self, key: str, reason: str) -> CorruptArtifactError:
        """Move a damaged artifact aside, so that it is built again, and say so."""
        aside = self.root / "corrupt" / f"{key}.{uuid.uuid4().hex[:8]}"
        with disk_errors(self.root):
            aside.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path(key), aside)
        return CorruptArtifactError(
            f"Artifact {key[:12]} is damaged: {reason}. It was moved to {aside} and will be built again"
        )


def _files(described: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The files of an artifact.

    Raises: ValueError for a name that leads out of the artifact
    """
    for name in described:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"'{name}' leads out of the artifact")
    return described


def _describe(directory: Path) -> dict[str, dict[str, Any]]:
    """Size, time and hash of every file below a directory, by relative POSIX path."""
    described = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        stat = path.stat()
        described[path.relative_to(directory).as_posix()] = {
            "size": stat.st_size,
            "sha256": sha256_file(path),
            "mtime_ns": stat.st_mtime_ns,
        }
    return described
