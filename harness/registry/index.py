"""What is installed, without importing it: an index of the registry, renewed when a file or version changes.

`harness list` reads it in a fraction of a second; importing torch alone costs two.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any

from harness.errors import PluginError
from harness.registry import probe as registry_probe

GROUP = "harness"
FORMAT = 5
SOURCES = (".py", ".so", ".pyd")
KEPT = 30 * 24 * 3600.0
"""Seconds that an index of another environment is kept."""


def read(*, fresh: bool = False) -> dict[str, Any]:
    """The index: `methods` and `stages` (see `compose.describe`), `axes`, folders of `suites` and `conf`,
    `quarantined`, `eager` (modules that bring more than methods, or nothing) and what plugins `printed`.

    From the cache where it holds, unless it is to be `fresh`.

    Raises: PluginError where nothing is installed, not even what comes with harness
    """
    offered = entry_points(group=GROUP)
    if not offered:
        raise PluginError(
            "harness runs here without being installed: no distribution offers methods and stages (entry "
            f"points of the group '{GROUP}'), its own neither; pip install harness-lm, or pip install -e . "
            "in a checkout"
        )
    signature = _signature(offered)
    for path in () if fresh else _cache_files():
        cached = _cached(path)
        if cached.get("signature") == signature and (
            not cached["quarantined"] or cached.get("installed") == _installed()
        ):
            return cached
    index = {"signature": signature, "installed": _installed(), **registry_probe.probe()}
    for path in _cache_files():
        if _write(path, index):
            break
    return index


def status(method: dict[str, Any]) -> str:
    """`ok`, or which extra must be installed before the method runs."""
    extra = method["extra"]
    if not extra or has_extra(method["package"], extra):
        return "ok"
    return f"needs {method['package']}[{extra}]"


def _signature(offered: Iterable[EntryPoint]) -> str:
    """Hash over path, size and mtime of every plugin file, and over versions."""
    import harness

    seen: list[Any] = [FORMAT, sys.version, sys.prefix, registry_probe.limit()]
    for entry in sorted(offered, key=str):
        version = entry.dist.version if entry.dist is not None else ""
        seen.append((str(entry), version, list(_files(entry))))
    own = Path(harness.__path__[0])
    for folder in (own, *(own / name for name in ("axes", "compose", "registry"))):
        seen.append([_stat(file) for file in sorted(folder.glob("*.py"))])
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
                yield from (_stat(Path(directory) / name) for name in sorted(names) if name.endswith(SOURCES))
    elif origin:
        yield _stat(Path(origin))


def _stat(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns


def _installed() -> list[Any]:
    """When anything was last installed: a plugin that lacked a library may load now."""
    folders = [path for path in sys.path if os.path.isdir(path) and os.path.abspath(path) != os.getcwd()]
    return [[path, os.stat(path).st_mtime_ns] for path in folders]


def _cache_files() -> Iterator[Path]:
    """Where the index may lie: the user's cache, else a folder of the user's own beside temporary files."""
    environment = hashlib.sha256(json.dumps([sys.prefix, sys.path]).encode()).hexdigest()[:12]
    name = f"registry-{environment}.index"
    with contextlib.suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness" / name
    yield Path(tempfile.gettempdir()) / f"harness-{os.getuid()}" / name


def _cached(path: Path) -> dict[str, Any]:
    """A cached index; empty where there is none, it is not as it was written, or another user's."""
    try:
        if path.stat().st_uid != os.getuid():
            return {}
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    return json.loads(content) if digest == _digest(content) else {}  # type: ignore[no-any-return]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _write(path: Path, index: dict[str, Any]) -> bool:
    """Store the index whole or not at all; where nothing can be written, it only costs time."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent.stat().st_uid != os.getuid():
            return False
        content = json.dumps(index).encode()
        part.write_bytes(_digest(content) + b"\n" + content)
        part.replace(path)
        _forget(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return False
    return True


def _forget(folder: Path) -> None:
    """Remove what environments left that are long gone; one that comes back writes its index again."""
    for path in folder.glob("registry-*"):
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink(missing_ok=True)


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
