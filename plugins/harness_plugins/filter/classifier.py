"""Classifier filter: keeps documents that read like a reference."""

import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import ConfigError, Document, Filter, Method, Split, hookimpl, path_ref, read_text

BUCKETS = 1 << 15
CHUNK_WORDS = 80


class Classifier(Filter):
    """Naive Bayes on hashed words and word pairs: reference text against other text.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix A (a linear classifier on hashed features)
    Differs: naive Bayes (one pass, no tuning) instead of logistic regression
    State: the log odds of each feature
    """

    name = "classifier"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        positive: str = path_ref()
        """Text file or folder of what to keep; empty takes Python's language reference."""
        negative: str = path_ref()
        """Text file or folder of what not to keep; empty takes the corpus itself."""
        threshold: float = 0.5
        """Least probability of the positive class, equal priors (0 to 1)."""

        def __post_init__(self) -> None:
            if not 0 <= self.threshold <= 1:
                raise ConfigError(f"filter.classifier.threshold={self.threshold} must lie in [0, 1]")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        good = "The function returns the value of the object when the argument is a sequence. "
        bad = "click here now best price buy cheap free offer win prize today only "
        (directory / "good.txt").write_text(good * 20)
        (directory / "bad.txt").write_text(bad * 20)
        return (
            cls.Config(positive=str(directory / "good.txt"), negative=str(directory / "bad.txt")),
            Document(id="good", text=good, domain="docs", split=Split.train),
            Document(id="bad", text="Buy now, cheap price, free offer!", domain="docs", split=Split.train),
        )

    @classmethod
    def check_files(cls, config: Any) -> None:
        for option in ("positive", "negative"):
            for file in cls.files(config, option):
                read_text(file)

    def learns(self) -> bool:
        return not self.config.negative

    def prepare(self) -> None:
        if self.config.negative:
            self.weigh(map(read_text, self.files(self.config, "negative")))

    def learn(self, documents: Iterator[Document]) -> None:
        self.weigh(document.text for document in documents)

    def weigh(self, negative: Iterable[str]) -> None:
        """Set the log odds of the positive texts against others."""
        if self.config.positive:
            positive: Iterable[str] = map(read_text, self.files(self.config, "positive"))
        else:
            from pydoc_data.topics import topics

            positive = topics.values()
        rates = [1.0 + sum(map(_counts, texts), np.zeros(BUCKETS)) for texts in (positive, negative)]
        self.log_odds = np.log(rates[0] / rates[0].sum()) - np.log(rates[1] / rates[1].sum())

    def state(self) -> dict[str, np.ndarray]:
        return {"log_odds": self.log_odds}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.log_odds = state["log_odds"]

    def judge(self, document: Document) -> Document | str:
        return document if self.probability(document.text) >= self.config.threshold else "classifier"

    def probability(self, text: str) -> float:
        """Probability of the positive class, of an average stretch of `CHUNK_WORDS` words."""
        counts = _counts(text)
        score = float(counts @ self.log_odds) / max(1.0, counts.sum() / CHUNK_WORDS)
        return float(1 / (1 + np.exp(-np.clip(score, -60, 60))))


def _counts(text: str) -> np.ndarray:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    features = [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]
    codes = [zlib.crc32(feature.encode()) % BUCKETS for feature in features]
    return np.bincount(codes, minlength=BUCKETS).astype(np.float64)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Classifier]
