"""Sources and documentation of the running Python's standard library."""

import ast
import hashlib
import os
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness import DataError

SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__phello__"}
)
TOPICS = "pydoc_data/topics.py"
"""The language reference."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _sources() -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(_root()):
        folders[:] = sorted(set(folders) - SKIPPED)
        found += [Path(folder, file) for file in sorted(files) if file.endswith(".py")]
    found = [path for path in found if not path.name.startswith("_sysconfigdata")]
    if not found:
        raise DataError(f"no sources of the standard library in {_root()}; use corpus=text or another Python")
    return found


def _shuffled(names: Iterable[str]) -> list[str]:
    """Ordered by a hash of the name, so that the first megabyte is like the rest."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def modules() -> dict[str, Path]:
    """Source files by their names within the library."""
    root = _root()
    return {path.relative_to(root).as_posix(): path for path in _sources()}


def code() -> Iterator[tuple[str, str]]:
    """Sources by name, in a fixed random order."""
    known = modules()
    for name in _shuffled(known):
        with tokenize.open(known[name]) as file:
            text = file.read()
        if text.strip():
            yield name, text


def docs() -> Iterator[tuple[str, str]]:
    """Docstrings of each module, and sections of the language reference, in a fixed random order."""
    with tokenize.open(_root() / TOPICS) as file:
        topics = dict(_topics(ast.parse(file.read())))
    known = modules()
    for name in _shuffled([*topics, *known]):
        if name in topics:
            yield name, topics[name]
            continue
        with tokenize.open(known[name]) as file:
            strings = list(_docstrings(ast.parse(file.read())))
        if strings:
            yield name, "\n\n".join(strings) + "\n"


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Sections of the language reference, which the library holds as one dict of strings."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, text in ast.literal_eval(node.value).items():
                yield f"topics/{key}", text.strip() + "\n"


def _docstrings(node: Documented, name: str = "") -> Iterator[str]:
    """Docstrings in source order, each under the name of what it documents."""
    text = ast.get_docstring(node)
    if text and text.strip():
        yield f"{name}\n{text}" if name else text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}".lstrip("."))


def files() -> dict[str, Path]:
    """All files that are read, by their names within the library."""
    return {**modules(), TOPICS: _root() / TOPICS}
