"""The embedded corpus: the running Python's own standard library."""

import math
<<<<<<< HEAD
from collections.abc import Iterator
=======
import os
import random
import string
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
>>>>>>> train
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

<<<<<<< HEAD
from harness import ConfigError, Corpus, Document, Method, check_limits, hookimpl
from harness_plugins.corpus import _library
=======
from harness import ConfigError, Corpus, DataError, Document, Method, Split, check_limits, hookimpl
>>>>>>> train

DOMAINS = ("code", "docs")
<<<<<<< HEAD
=======
NOISE, NOISE_BYTES = "noise", 2000
"""The domain of random characters, and what one of its documents has."""
TOPICS = "pydoc_data/topics.py"
"""The language reference."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
>>>>>>> train


class Stdlib(Corpus):
    """Sources (`code`) and documentation (`docs`: docstrings and the language reference) of Python.

    Differs: content changes with the patch release; what it is enters the key
    Raises: DataError where the library's sources are not on disk
    """

    name = "stdlib"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        domains: list[str] = field(default_factory=lambda: list(DOMAINS))
        """Which of `code` and `docs` to read."""
        max_bytes: int | None = None
        """UTF-8 bytes kept of each domain, a random choice of whole files; null = all."""
        noise_bytes: int | None = None
        """Bytes of random characters that training gets as a third domain, `noise`: bad data that a
        curriculum may put in one place; null = none."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.domains or not set(self.domains) <= set(DOMAINS):
                raise ConfigError(f"corpus.domains={list(self.domains)} must name some of {list(DOMAINS)}")
            check_limits(self, "corpus", "max_bytes", "noise_bytes")

    config: Config

    def documents(self) -> Iterator[Document]:
        for domain in sorted(set(self.config.domains)):
            left = math.inf if self.config.max_bytes is None else self.config.max_bytes
            for module, text in _library.code() if domain == "code" else _library.docs():
                left -= len(text.encode())
                if left < 0:
                    break
                yield Document(id=f"{domain}/{module}", text=text, domain=domain, split=self.split(module))
        yield from _noise(self.config.noise_bytes or 0)

    def most_bytes(self) -> int | None:
        most = self.config.max_bytes
        return None if most is None else most * len(set(self.config.domains)) + (self.config.noise_bytes or 0)

    @classmethod
    def reads(cls, config: Any) -> dict[str, Path]:
<<<<<<< HEAD
        return _library.files()
=======
        return {**_modules(), TOPICS: _root() / TOPICS}


def _noise(num_bytes: int) -> Iterator[Document]:
    """Printable characters, each drawn from all of them."""
    drawn = random.Random(0)
    for start in range(0, num_bytes, NOISE_BYTES):
        text = "".join(drawn.choices(string.printable, k=min(NOISE_BYTES, num_bytes - start)))
        name = f"{NOISE}/{start // NOISE_BYTES}"
        yield Document(id=name, text=text.replace("\r", "\n"), domain=NOISE, split=Split.train)


def _root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _sources() -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(_root()):
        folders[:] = sorted(set(folders) - SKIPPED)
        found += [Path(folder, file) for file in sorted(files) if file.endswith(".py")]
    found = [path for path in found if not path.name.startswith("_sysconfigdata")]
    if not found:
        raise DataError(f"corpus=stdlib finds no sources in {_root()}; use corpus=text or another Python")
    return found


def _shuffled(names: Iterable[str]) -> list[str]:
    """Ordered by a hash of the name, so that the first megabyte is like the rest."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def _modules() -> dict[str, Path]:
    """Source files by their names within the library."""
    return {path.relative_to(_root()).as_posix(): path for path in _sources()}


def _code() -> Iterator[tuple[str, str]]:
    modules = _modules()
    for name in _shuffled(modules):
        with tokenize.open(modules[name]) as file:
            text = file.read()
        if text.strip():
            yield name, text


def _docs() -> Iterator[tuple[str, str]]:
    with tokenize.open(_root() / TOPICS) as file:
        topics = dict(_topics(ast.parse(file.read())))
    modules = _modules()
    for name in _shuffled([*topics, *modules]):
        if name in topics:
            yield name, topics[name]
            continue
        with tokenize.open(modules[name]) as file:
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
>>>>>>> train


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Stdlib]
