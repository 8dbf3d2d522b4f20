"""Set-level deduplication: training documents that hold evaluation text are dropped."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness import ConfigError, Document, Filter, Method, Overlap, Split, file_texts, hookimpl, path_ref

FIRST = 16
"""Texts of a file by which a plan knows its format."""


class DedupSet(Filter):
    """Drops a training document that shares word n-grams with held-out documents or with given files.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams)
    Differs: a text of 8 words or more that has no n-gram is looked for as a whole
    State: hashes of the held-out n-grams
    """

    name = "dedup_set"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        ngram: int = 13
        """Words of an n-gram."""
        max_share: float = 0.0
        """Share of a document's n-grams that may be contaminated (0 to 1)."""
        files: list[str] = path_ref(list)
        """Text of benchmarks (files, folders, patterns), besides the validation and test documents."""

        def __post_init__(self) -> None:
            if self.ngram < 1:
                raise ConfigError(f"filter.dedup_set.ngram={self.ngram} must be at least 1")
            if not 0 <= self.max_share < 1:
                raise ConfigError(f"filter.dedup_set.max_share={self.max_share} must lie in [0, 1)")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        text = " ".join(f"question{number}" for number in range(30))
        return (
            cls.Config(),
            Document(id="test", text=text, domain="docs", split=Split.test),
            Document(id="leak", text=f"Seen on a page: {text}", domain="docs", split=Split.train),
        )

    @classmethod
    def check_files(cls, config: Any) -> None:
        for file in cls.files(config, "files"):
            for _ in islice(file_texts(file), FIRST):
                pass

    def learn(self, documents: Iterator[Document]) -> None:
        self.held_out = Overlap(self.texts(documents), ngram=self.config.ngram)

    def state(self) -> dict[str, np.ndarray]:
        return self.held_out.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.held_out = Overlap((), ngram=self.config.ngram)
        self.held_out.restore(state)

    def texts(self, documents: Iterable[Document]) -> Iterator[str]:
        """What training documents are compared with."""
        for document in documents:
            if document.split is not Split.train:
                yield document.text
        for file in self.files(self.config, "files"):
            yield from file_texts(file)

    def judge(self, document: Document) -> Document | str:
        if document.split is not Split.train:
            return document
        return "held-out text" if self.held_out.share(document.text) > self.config.max_share else document


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DedupSet]
