"""The embedded corpus: the running Python's own standard library."""

import math
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ConfigError, Corpus, Document, Method, Split, check_limits, hookimpl
from harness_plugins.corpus._library import code, docs, files

DOMAINS = ("code", "docs")
NOISE, NOISE_BYTES = "noise", 2000
"""The domain of random characters, and what one of its documents has."""


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
            for module, text in code() if domain == "code" else docs():
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
        return files()


def _noise(num_bytes: int) -> Iterator[Document]:
    """Printable characters, each drawn from all of them."""
    drawn = random.Random(0)
    for start in range(0, num_bytes, NOISE_BYTES):
        text = "".join(drawn.choices(string.printable, k=min(NOISE_BYTES, num_bytes - start)))
        name = f"{NOISE}/{start // NOISE_BYTES}"
        yield Document(id=name, text=text.replace("\r", "\n"), domain=NOISE, split=Split.train)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Stdlib]
