"""What is installed, without importing it: an index of the registry, renewed when a file or version changes.

`harness list` reads it in a fraction of a second; importing torch alone costs two.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any

GROUP = "harness"
FORMAT = 2


def read() -> dict[str, Any]:
    """The index: `methods` (see `compose.describe`), `axes` and `quarantined`, from the cache where it holds.

    Raises: DuplicateMethodError, if two plugins claim one name
    """
    signature = _signature()
    path = _cache_file()
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["signature"] == signature:
            return cached  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or one that another version wrote: it is made again
    index = {"signature": signature, **_build()}
    _write(path, index)
    return index


def status(method: dict[str, Any]) -> str:
    """`ok`, or which extra must be installed before the method runs."""
    extra = method["extra"]
    if not extra or has_extra(method["package"], extra):
        return "ok"
    return f"needs {method['package']}[{extra}]"


def _build() -> dict[str, Any]:
    from harness.compose.describe import describe
    from harness.registry import Registry

    known = Registry.load()
    return {
        "methods": [describe(method, known) for method in known.all()],
        "axes": {name: {"summary": axis.summary(), "many": axis.many} for name, axis in known.axes.items()},
        "quarantined": [
            {
                "module": broken.source.module,
                "package": broken.source.package,
                "version": broken.source.version,
                "cause": broken.cause,
                "offers": sorted(broken.offers),
                "message": str(broken),
            }
            for broken in known.quarantined
        ],
    }


def _signature() -> str:
    """Hash over path, size and mtime of every plugin file, and over versions."""
    from harness import axes

    seen: list[Any] = [FORMAT, sys.version, sys.prefix]
    for entry in sorted(entry_points(group=GROUP), key=str):
        version = entry.dist.version if entry.dist is not None else ""
        seen.append((str(entry), version, list(_files(entry))))
    own = Path(str(axes.__file__)).parent
    seen.append([_stat(file) for file in (*sorted(own.glob("*.py")), own.parent / "method.py")])
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _files(entry: EntryPoint) -> Iterator[tuple[str, int, int]]:
    """The source files behind an entry point, found without importing it."""
    parts = entry.module.split(".")
    search: list[str] | None = None
    origin: str | None = None
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search)
        if spec is None:
            return
        search, origin = list(spec.submodule_search_locations or []), spec.origin
    if search:
        for folder in search:
            for directory, _, names in sorted(os.walk(folder)):
                yield from (_stat(Path(directory) / name) for name in sorted(names) if name.endswith(".py"))
    elif origin:
        yield _stat(Path(origin))


def _stat(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns


def _cache_file() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = hashlib.sha256(json.dumps([sys.prefix, sys.path]).encode()).hexdigest()[:12]
    return base / "harness" / f"registry-{environment}.json"


def _write(path: Path, index: dict[str, Any]) -> None:
    """Store the index whole or not at all; a read-only home only costs time."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(index), encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)


def has_extra(package: str, extra: str) -> bool:
    """Whether everything that an extra names is installed."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = distribution(package).requires or []
    except PackageNotFoundError:
        return True
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate() or not marker.evaluate({"extra": extra}):
            continue
        try:
            distribution(requirement.name)
        except PackageNotFoundError:
            return False
    return True
