"""Documentation with planted faults, so that a filter's effect is known beforehand."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ConfigError, Corpus, Document, Method, Split, check_limits, hookimpl
from harness_plugins.corpus._library import docs, files

DOMAIN = "docs"
PLANTED, FRESH = "records_planted", "records_fresh"
"""Domains of the records that measure what a model keeps of personal data."""
ORIGINALS = 8
"""Documents that copies are made of."""
PEOPLE = 20
LINES = 12
"""Records of one document."""
CHANGED = 0.02
"""Share of the words that a copy has changed."""
SYLLABLES = ("an", "bel", "cor", "da", "el", "fin", "go", "han", "is", "ka", "lo", "mar", "ne", "os", "ta")
AREAS = (202, 212, 303, 312, 404, 415, 503, 617, 713, 808)


class Planted(Corpus):
    """Documentation of the standard library, and training documents with faults, each kind a domain.

    Noise is words of random characters. Duplicates are near copies of a few training documents. Contamination
    is what is tested, verbatim. Records are made-up people with e-mail addresses and telephone numbers: test
    documents hold the planted ones and as many that nothing was trained on.

    Paper: Carlini et al. 2018, arXiv:1802.08232 (canaries); Lee et al. 2021, arXiv:2107.06499 (near copies)
    Differs: every kind is planted in equal bytes, up to the stated share of the training text
    """

    name = "planted"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        kinds: list[str] = field(default_factory=lambda: list(KINDS))
        """Which of noise, duplicates, contamination, pii to plant; empty plants nothing."""
        share: float = 0.5
        """Share of the training text that is planted (0 to 1)."""
        max_bytes: int | None = None
        """UTF-8 bytes kept of the documentation, a random choice of whole documents; null = all."""
        seed: int = 0
        """Seed of the faults; the run's seed does not move them."""

        def __post_init__(self) -> None:
            super().__post_init__()
            unknown = sorted(set(self.kinds) - set(KINDS))
            if unknown:
                raise ConfigError(f"corpus.kinds names {unknown}; known: {list(KINDS)}")
            if not 0 < self.share < 1:
                raise ConfigError(f"corpus.share={self.share} must lie between 0 and 1")
            check_limits(self, "corpus", "max_bytes")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        return cls.Config(max_bytes=400_000)

    def documents(self) -> Iterator[Document]:
        clean = list(self._clean())
        yield from clean
        if self.config.test_share:
            yield from self._records()
        train = [document for document in clean if document.split is Split.train]
        room = sum(len(document.text.encode()) for document in train) * self.config.share
        room /= (1 - self.config.share) * max(1, len(self.config.kinds))
        for kind in self.config.kinds:
            if kind == "contamination" and not any(document.split is Split.test for document in clean):
                continue  # nothing is held out that could leak
            rng = random.Random(f"{self.config.seed}/{kind}")
            left = room
            for number in itertools.count():
                text = KINDS[kind](rng, clean)
                left -= len(text.encode())
                if left < 0 and number:
                    break
                yield Document(id=f"{kind}/{number}", text=text, domain=kind, split=Split.train)

    @classmethod
    def reads(cls, config: Any) -> dict[str, Path]:
        return files()

    def _clean(self) -> Iterator[Document]:
        left = self.config.max_bytes
        for module, text in docs():
            if left is not None:
                left -= len(text.encode())
                if left < 0:
                    return
            yield Document(id=f"docs/{module}", text=text, domain=DOMAIN, split=self.split(module))

    def _records(self) -> Iterator[Document]:
        for domain in (PLANTED, FRESH):
            for number, line in enumerate(people(fresh=domain == FRESH)):
                yield Document(id=f"{domain}/{number}", text=line, domain=domain, split=Split.test)


def people(*, fresh: bool) -> list[str]:
    """Records of made-up people: those that are planted, or others."""
    rng = random.Random(f"fresh {fresh}")
    return [_record(rng) for _ in range(PEOPLE)]


def _record(rng: random.Random) -> str:
    first, last = ("".join(rng.choices(SYLLABLES, k=3)) for _ in range(2))
    number = f"({rng.choice(AREAS)}) {rng.randint(220, 989)}-{rng.randint(1000, 9999)}"
    return f"Contact {first} {last}, e-mail {last}.{first}@{rng.choice(SYLLABLES)}mail.com, phone {number}.\n"


def _noise(rng: random.Random, documents: list[Document]) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789#$%&*=/+"
    words = ("".join(rng.choices(letters, k=rng.randint(2, 14))) for _ in range(rng.randint(80, 400)))
    return " ".join(words) + "\n"


def _copy(rng: random.Random, documents: list[Document]) -> str:
    """One of a few documents with some words changed."""
    train = [document for document in documents if document.split is Split.train][:ORIGINALS]
    words = rng.choice(train).text.split(" ")
    for place in range(len(words)):
        if rng.random() < CHANGED:
            words[place] = rng.choice(SYLLABLES)
    return " ".join(words)


def _leak(rng: random.Random, documents: list[Document]) -> str:
    return rng.choice([document for document in documents if document.split is Split.test]).text


def _pii(rng: random.Random, documents: list[Document]) -> str:
    return "".join(rng.choices(people(fresh=False), k=LINES))


KINDS: dict[str, Callable[[random.Random, list[Document]], str]] = {
    "noise": _noise,
    "duplicates": _copy,
    "contamination": _leak,
    "pii": _pii,
}
"""Kind of fault -> one document of it."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Planted]
