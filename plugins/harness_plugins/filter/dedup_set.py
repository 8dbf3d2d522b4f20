"""Set-level deduplication: training documents that hold evaluation text are dropped."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import ConfigError, Document, Filter, Method, Split, hookimpl, path_ref, read_text


class DedupSet(Filter):
    """Drops a training document that shares word n-grams with held-out documents or with given files.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams)
    State: hashes of the held-out n-grams; the whole stream is held in memory
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

    def apply(self, documents: Iterator[Document]) -> Iterator[Document]:
        found = list(documents)
        self.held_out: set[bytes] = set()
        for document in found:
            if document.split is not Split.train:
                self.held_out.update(self.ngrams(document.text))
        for file in self.files(self.config, "files"):
            self.held_out.update(self.ngrams(read_text(file)))
        yield from super().apply(iter(found))

    def judge(self, document: Document) -> Document | str:
        if document.split is not Split.train:
            return document
        own = list(self.ngrams(document.text))
        hits = sum(ngram in self.held_out for ngram in own)
        return "held-out text" if own and hits / len(own) > self.config.max_share else document

    def ngrams(self, text: str) -> Iterator[bytes]:
        """Hashes of a text's word n-grams; shorter texts have none."""
        words = re.findall(r"\w+", text.lower())
        for start in range(len(words) - self.config.ngram + 1):
            joined = " ".join(words[start : start + self.config.ngram])
            yield hashlib.blake2b(joined.encode(), digest_size=8).digest()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DedupSet]
