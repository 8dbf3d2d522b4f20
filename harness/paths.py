"""Options that name files: how a Config declares one, which files it means, and what is wrong with it."""

from __future__ import annotations

import difflib
import functools
import glob
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, DataError

MARK = "path_ref"
"""Key of a field's metadata under which its `PathRef` stands."""


@dataclass(frozen=True, kw_only=True)
class PathRef:
    """What an option that names files takes."""

    suffixes: tuple[str, ...] = ()
    """How names of files in a folder must end to be read, hidden ones never; empty for all files."""
    required: bool = False
    """Whether it cannot be left empty."""
    folder: bool = False
    """Whether it must be a folder."""
    or_name: bool = False
    """Whether it may be the name of something else: a value is a path where it ends with one of the
    suffixes, or, where there are none, exists or begins like a path."""

    def is_path(self, value: str) -> bool:
        """Whether a value means files, and is no name."""
        if not value or not self.or_name:
            return True
        if self.suffixes:
            return value.lower().endswith(self.suffixes)
        return value.startswith(("/", ".", "~")) or Path(value).exists()


def path_ref(
    default: Any = "",
    *,
    suffixes: tuple[str, ...] = (),
    required: bool = False,
    folder: bool = False,
    or_name: bool = False,
) -> Any:
    """A Config field that names files: a path, a list of paths, or a mapping whose values are paths.

    A path is a file, a folder (the files below it), or a pattern (`data/*.jsonl`); empty means none. The
    plan refuses what does not exist. Content and names of the files enter the stage's key, the place where
    they lie does not: what a method makes of them must not depend on it. A callable `default` is a factory.
    The other arguments are those of `PathRef`.
    """
    ref = PathRef(suffixes=suffixes, required=required, folder=folder, or_name=or_name)
    if callable(default):
        return field(default_factory=default, metadata={MARK: ref})
    return field(default=default, metadata={MARK: ref})


@dataclass(frozen=True, kw_only=True)
class Named:
    """One path that an option names."""

    option: str
    """Within its Config: `path`, `files.0`, `data_files.recall.test`."""
    value: str
    ref: PathRef

    @property
    def is_path(self) -> bool:
        """Whether it means files."""
        return self.ref.is_path(self.value)

    def files(self, *, where: str) -> dict[str, Path]:
        """Its files by the names that count; `where` stands before the option in messages.

        Raises: DataError where there are none
        """
        option = f"{where}.{self.option}" if where else self.option
        if self.ref.folder and self.value and not expanded(self.value).is_dir():
            path = expanded(self.value)
            way = f"; give the one it lies in, '{path.parent}'" if path.is_file() else _alike(self.value)
            raise DataError(f"{option}: '{self.value}' is not a folder{way}")
        return listed(self.value, option=option, suffixes=self.ref.suffixes)


def named(config: Any) -> Iterator[Named]:
    """Every path of a Config's declared options, those of nested options included; empty ones are left out,
    unless they are required.

    Raises: ConfigError where a declared option holds what is no text
    """
    for f in fields(config):
        value = getattr(config, f.name)
        ref = f.metadata.get(MARK)
        if ref is None:
            yield from _nested(value, f.name)
            continue
        for option, leaf in _leaves(value, f.name):
            if not isinstance(leaf, str | Path):
                raise ConfigError(f"{option}={leaf!r} must be a path")
            if str(leaf) or ref.required:
                yield Named(option=option, value=str(leaf), ref=ref)


@functools.cache
def declares(config: Any) -> bool:
    """Whether a class of Configs, or one of those inside it, may name files."""
    hints = typing.get_type_hints(config).values()
    inner: list[Any] = [part for hint in hints for part in (hint, *parts(hint)) if is_dataclass(part)]
    return any(MARK in f.metadata for f in fields(config)) or any(declares(part) for part in inner)


def files_of(config: Any, option: str, *, where: str) -> list[Path]:
    """The files that one option names, in alphabetical order; none where it is empty or holds a name.

    Raises: DataError where they are not there
    """
    of = (item for item in named(config) if item.option.partition(".")[0] == option)
    return [file for item in of if item.is_path for file in item.files(where=where).values()]


def files_at(path: str, *, option: str, suffixes: tuple[str, ...] = ()) -> list[Path]:
    """The file at `path`, the files with these suffixes below the folder, or those that match the pattern, in
    alphabetical order.

    Raises: DataError naming the option where there is nothing
    """
    return list(listed(path, option=option, suffixes=suffixes).values())


def listed(path: str, *, option: str, suffixes: tuple[str, ...] = ()) -> dict[str, Path]:
    """The files that a path means, by the names that count: a file's own, those of a folder from its own name
    on, those that match a pattern from the first folder with a wildcard on.

    Raises: DataError naming the option where there is nothing
    """
    if not path:
        raise DataError(f"{option} is empty; give an existing file or folder")
    root = expanded(path)
    if root.is_file():
        return {root.name: root}
    if root.is_dir():
        found = [file for file in sorted(_below(root)) if file.is_file()]
        if suffixes:
            found = [file for file in found if not _hidden(file.relative_to(root))]
        base = Path(os.path.abspath(root)).parent
    elif glob.has_magic(path):
        found = sorted(Path(file) for file in glob.glob(str(root), recursive=True))
        found, suffixes = [file for file in found if file.is_file()], ()
        base = Path(os.path.abspath(Path(*root.parts[: _first_magic(root)])))
    else:
        raise DataError(
            f"{option}: no file or folder '{path}'{_alike(path)}; give an existing file, folder or pattern"
        )
    found = [file for file in found if not suffixes or file.name.lower().endswith(suffixes)]
    if not found:
        wanted = f" with a name that ends in {' or '.join(suffixes)}" if suffixes else ""
        raise DataError(f"{option}: no file{wanted} in '{path}'")
    return {Path(os.path.abspath(file)).relative_to(base).as_posix(): file for file in found}


def expanded(path: str | Path) -> Path:
    """A path with the home directory for `~`."""
    return Path(path).expanduser()


def parts(hint: Any) -> Iterator[Any]:
    """Types inside a type: of a union, a list, a mapping."""
    for part in typing.get_args(hint):
        yield part
        yield from parts(part)


def _below(root: Path) -> Iterator[Path]:
    """Everything below a folder, through links to folders too, but for one that leads back up."""
    for directory, folders, files in os.walk(root, followlinks=True):
        here = Path(directory)
        above = [here, *(parent for parent in here.parents if parent.is_relative_to(root))]
        folders[:] = [name for name in folders if not any(parent.samefile(here / name) for parent in above)]
        yield from (here / name for name in files)


def _hidden(name: Path) -> bool:
    """Whether it is, or lies in, what a pattern passes over: `._part.jsonl`, `.git/config`."""
    return any(part.startswith(".") for part in name.parts)


def _first_magic(path: Path) -> int:
    return next(place for place, part in enumerate(path.parts) if glob.has_magic(part))


def _alike(path: str) -> str:
    """What lies beside a path that does not exist and is called almost like it."""
    missing = expanded(path)
    try:
        beside = os.listdir(missing.parent)
    except OSError:
        return f" (nor a folder '{missing.parent}')"
    close = difflib.get_close_matches(missing.name, beside, n=1)
    return f" (there is '{missing.parent / close[0]}')" if close else ""


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{name}.{place}")
    elif value is not None:
        yield name, value


def _nested(value: Any, name: str) -> Iterator[Named]:
    """Paths of Configs inside a Config."""
    for option, leaf in _leaves(value, name):
        if is_dataclass(leaf) and not isinstance(leaf, type):
            for found in named(leaf):
                yield Named(option=f"{option}.{found.option}", value=found.value, ref=found.ref)
