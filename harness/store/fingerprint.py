"""Source fingerprints: a changed method never returns a stale result, a changed comment costs nothing."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.store.files import read_cache, sha256_file, write_json
from harness.store.syntax import read

SETTLED = 10**9
"""Nanoseconds after which a file that is written again has another time, whatever the file system's clock."""
_PARSED: dict[tuple[str, int, int], tuple[str, list[list[Any]]]] = {}
"""Path, size, time -> hash and imports, for all stores of this process."""
_DATA = {".yaml", ".yml", ".json", ".jinja", ".j2", ".txt"}


@dataclass(frozen=True)
class Fingerprint:
    """What a set of modules rests on."""

    sha256: str
    """Hash of the docstring-free syntax trees, and of data files beside them."""
    libraries: tuple[str, ...]
    """Top-level names of other distributions they import, the standard library left out."""


@dataclass(frozen=True)
class Module:
    """What one module adds to a fingerprint."""

    hashes: dict[str, str]
    """Its own hash, and those of data files beside it."""
    targets: set[str]
    """Modules of its own distribution and of harness that it may import."""
    libraries: set[str]


@dataclass
class Fingerprints:
    """Fingerprints of modules; files are parsed again only when their size or time changed.

    State: `cache_file` remembers, by path, (size, time, hash, imports); it may be deleted at any time
    """

    cache_file: Path | None = None
    _known: dict[str, list[Any]] = field(default_factory=dict)
    _modules: dict[str, Module | None] = field(default_factory=dict)
    _closures: dict[str, Fingerprint] = field(default_factory=dict)
    _changed: bool = False

    def __post_init__(self) -> None:
        if self.cache_file is not None:
            self._known = read_cache(self.cache_file)

    def of(self, modules: Iterable[str]) -> Fingerprint:
        """Fingerprint of modules and of all they import inside their own distribution and harness."""
        names = sorted(set(modules))
        whole = "\n".join(names)
        if whole not in self._closures:
            self._closures[whole] = self._closure(names)
        return self._closures[whole]

    def save(self) -> None:
        """Write the cache; a store that cannot be written merely forgets."""
        if self.cache_file is not None and self._changed:
            try:
                write_json(self.cache_file, self._known)
            except (OSError, StoreError):
                return
            self._changed = False

    def _closure(self, roots: list[str]) -> Fingerprint:
        hashes: dict[str, str] = {}
        libraries: set[str] = set()
        seen: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self._modules:
                self._modules[name] = self._module(name)
            module = self._modules[name]
            if module is not None:
                hashes |= module.hashes
                libraries |= module.libraries
                waiting.extend(module.targets)
        material = json.dumps(sorted(hashes.items())).encode()
        return Fingerprint(hashlib.sha256(material).hexdigest(), tuple(sorted(libraries)))

    def _module(self, name: str) -> Module | None:
        """What one module adds to a closure; None for what is no Python source."""
        file = module_file(name)
        if file is None:
            return None
        sha256, imports = self._parsed(file)
        hashes = {name: sha256}
        for data in _data_files(file.parent):
            hashes[str(data.relative_to(file.parent.parent))] = self._data(data)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        imported = {target for line in imports for target in _resolve(line, package=package)}
        targets = {target for target in imported if _top(target) in (_top(name), "harness")}
        others = {_top(target) for target in imported - targets}
        return Module(hashes, targets, others - sys.stdlib_module_names)

    def _parsed(self, file: Path) -> tuple[str, list[list[Any]]]:
        stat = file.stat()
        place = (str(file), stat.st_size, stat.st_mtime_ns)
        known = self._known.get(str(file))
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns] or len(known) != 4:
            found = _PARSED.get(place)
            if found is None:
                found = read(ast.parse(file.read_bytes(), filename=str(file)))
                if time.time_ns() - stat.st_mtime_ns > SETTLED:
                    _PARSED[place] = found
            known = [stat.st_size, stat.st_mtime_ns, *found]
            self._known[str(file)] = known
            self._changed = True
        return known[2], known[3]

    def _data(self, file: Path) -> str:
        stat = file.stat()
        known = self._known.get(str(file))
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            known = [stat.st_size, stat.st_mtime_ns, sha256_file(file)]
            self._known[str(file)] = known
            self._changed = True
        return str(known[2])


def module_file(name: str) -> Path | None:
    """The source file of a module, found without importing it; None for what is no Python source."""
    top, *rest = name.split(".")
    if top == name:
        # The package itself: `import harness` re-exports on demand, so its text decides nothing.
        return None if name == "harness" else _package_file(name)
    for folder in _folders(top):
        path = folder.joinpath(*rest)
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    return Path(file) if file and file.endswith(".py") else None


@cache
def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of top-level packages, `absent` where there is none; nothing is imported."""
    return {library: _version(library) for library in libraries}


_CALLED = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "PyYAML"}
"""Distributions of common packages of another name; others are found by reading what every distribution
holds, which costs 0.3 s a process."""


@cache
def _version(library: str) -> str:
    for name in (library, _CALLED.get(library)):
        if name and (found := _installed(name)):
            return found
    if util.find_spec(library) is None:
        return "absent"
    return next(filter(None, map(_installed, _distributions().get(library, ()))), "absent")


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def python_version() -> str:
    """Python's version without the patch release, which changes no result that it does not repair."""
    return ".".join(map(str, sys.version_info[:2]))


@cache
def environment() -> str:
    """A hash of every installed distribution and its version, and of Python's."""
    installed = sorted({f"{d.name}=={d.version}" for d in metadata.distributions()})
    return hashlib.sha256("\n".join([sys.version, *installed]).encode()).hexdigest()[:16]


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: sorted(set(found)) for name, found in metadata.packages_distributions().items()}


@cache
def _folders(top: str) -> tuple[Path, ...]:
    spec = util.find_spec(top)
    return tuple(Path(p) for p in (spec.submodule_search_locations or ())) if spec is not None else ()


@cache
def _package_file(name: str) -> Path | None:
    spec = util.find_spec(name)
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin and origin.endswith(".py") else None


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    """Data files of a package: those in its folder and in its folders that hold no Python."""
    if not (folder / "__init__.py").is_file():
        return ()
    found = []
    for directory, children, files in os.walk(folder):
        here = Path(directory)
        if here != folder and any(file.endswith(".py") for file in files):
            children.clear()
            continue
        children[:] = sorted(child for child in children if child not in ("__pycache__", "conf"))
        found += [here / file for file in sorted(files) if Path(file).suffix in _DATA]
    return tuple(found)


def _resolve(imported: list[Any], *, package: str) -> Iterable[str]:
    """Modules that one import statement may load."""
    level, module, names = imported
    if level:
        base = package.split(".")[: len(package.split(".")) - level + 1]
        module = ".".join([*base, module] if module else base)
    if module == "harness":
        from harness import _PUBLIC

        yield from (_PUBLIC.get(name, f"harness.{name}") for name in names)
        return
    yield module
    if _top(module) in ("harness", _top(package)):
        yield from (f"{module}.{name}" for name in names)


def _top(name: str) -> str:
    return name.partition(".")[0]
