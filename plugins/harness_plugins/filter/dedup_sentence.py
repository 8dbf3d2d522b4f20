"""Sentence-level deduplication: spans of sentences met before are cut out."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness import UNSPACED, ConfigError, Document, Filter, Method, Split, hookimpl

ENDS = ".!?\u3002\uff01\uff1f\uff61\u0964\u061f\u1362"
"""What ends a sentence, in Chinese, Japanese, Hindi, Arabic and Amharic too."""
SENTENCE = re.compile(rf"[^{ENDS}\n]*(?:[{ENDS}]+[ \t]*\n?|\n|$)")
CHARACTER = re.compile(f"[{UNSPACED}]")
"""What stands for a word where no spaces do."""


class DedupSentence(Filter):
    """Keeps the first of every span of `span` consecutive sentences; later ones are cut.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 2.2 (C4: spans of three sentences)
    Differs: spans with fewer than `min_words` words stay, so that `return None` may recur
    State: hashes of all spans seen, 8 bytes each
    """

    name = "dedup_sentence"
    remembers = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        span: int = 3
        """Sentences compared at once."""
        min_words: int = 8
        """Words, or characters of a script without spaces, below which a span may repeat."""

        def __post_init__(self) -> None:
            if self.span < 1:
                raise ConfigError(f"filter.dedup_sentence.span={self.span} must be at least 1")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        text = "Files are opened by name. They are read line by line. Each line ends with a newline. "
        return (
            cls.Config(),
            Document(id="first", text=text, domain="docs", split=Split.train),
            Document(
                id="second", text="Something new stands here. " + text, domain="docs", split=Split.train
            ),
        )

    def prepare(self) -> None:
        self.seen: set[bytes] = set()

    def state(self) -> dict[str, np.ndarray]:
        return {"seen": np.frombuffer(b"".join(self.seen), dtype=np.uint64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.seen.update(number.tobytes() for number in state["seen"])

    def judge(self, document: Document) -> Document | str:
        sentences = [part for part in SENTENCE.findall(document.text) if part]
        full = [index for index, part in enumerate(sentences) if part.strip()]
        cut: set[int] = set()
        for start in range(len(full) - self.config.span + 1):
            span = full[start : start + self.config.span]
            words = " ".join(sentences[index] for index in span).lower().split()
            text = " ".join(words)
            if len(words) + len(CHARACTER.findall(text)) < self.config.min_words:
                continue
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            if digest in self.seen:
                cut.update(span)
            self.seen.add(digest)
        if not cut:
            return document
        text = "".join(part for index, part in enumerate(sentences) if index not in cut)
        return replace(document, text=text) if text.strip() else "nothing but repeated sentences"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DedupSentence]
