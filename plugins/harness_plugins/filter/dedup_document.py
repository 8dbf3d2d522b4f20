"""Document-level deduplication: near copies are found by MinHash and dropped."""

import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import ConfigError, Document, Filter, Method, Split, hookimpl, words

PRIME = (1 << 31) - 1
IN_BAND = 32
"""Earlier documents that are compared because they share one band, at most."""


class DedupDocument(Filter):
    """Drops a document whose word n-grams overlap with an earlier one's: MinHash signatures, bands to find
    candidates, and the estimated Jaccard similarity to decide.

    Paper: Broder 1997; Lee et al. 2021, arXiv:2107.06499
    Differs: of the documents that share a band, only the first and the latest are compared, IN_BAND in all,
        so that pages from one template cost no more the more there are; a copy also shares bands with its
        original that the template does not fill
    Error: the estimate of a similarity s has standard deviation sqrt(s (1 - s) / (bands * rows))
    State: one signature a document kept; `compared` counts comparisons
    """

    name = "dedup_document"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        threshold: float = 0.7
        """Estimated Jaccard similarity from which a document is a copy (0 to 1]."""
        ngram: int = 5
        """Words of a shingle."""
        bands: int = 16
        """Bands of the signature; a candidate shares one."""
        rows: int = 8
        """Hashes of a band."""

        def __post_init__(self) -> None:
            if not 0 < self.threshold <= 1:
                raise ConfigError(f"filter.dedup_document.threshold={self.threshold} must lie in (0, 1]")
            if min(self.ngram, self.bands, self.rows) < 1:
                raise ConfigError("filter.dedup_document: ngram, bands and rows must be at least 1")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        text = " ".join(f"word{number * number % 97}" for number in range(120))
        return (
            cls.Config(),
            Document(id="first", text=text, domain="docs", split=Split.train),
            Document(id="copy", text=text + " and more", domain="docs", split=Split.train),
        )

    def apply(self, documents: Iterator[Document]) -> Iterator[Document]:
        number = self.config.bands * self.config.rows
        rng = np.random.default_rng(0)
        self.factors_H = rng.integers(1, PRIME, size=number, dtype=np.uint64)
        self.offsets_H = rng.integers(0, PRIME, size=number, dtype=np.uint64)
        self.signatures = np.empty((1024, number), dtype=np.uint64)
        self.kept = self.compared = 0
        self.whole: set[bytes] = set()
        self.buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        yield from super().apply(documents)

    def judge(self, document: Document) -> Document | str:
        signature_H = self.signature(document.text)
        bands = signature_H.reshape(self.config.bands, self.config.rows)
        keys = [(band, bands[band].tobytes()) for band in range(self.config.bands)]
        if signature_H.tobytes() in self.whole:
            return "near copy"
        candidates_C = list({index for key in keys for index in self.buckets.get(key, ())})
        self.compared += len(candidates_C)
        same_C = (self.signatures[candidates_C] == signature_H).mean(axis=1)
        if (same_C >= self.config.threshold).any():
            return "near copy"
        for key in keys:
            bucket = self.buckets[key]
            bucket.append(self.kept)
            if len(bucket) > IN_BAND:
                del bucket[IN_BAND // 2]
        if self.kept == len(self.signatures):
            self.signatures = np.concatenate([self.signatures, np.empty_like(self.signatures)])
        self.signatures[self.kept] = signature_H
        self.kept += 1
        self.whole.add(signature_H.tobytes())
        return document

    def signature(self, text: str) -> np.ndarray:
        """Least hash of the document's shingles under each of the H permutations."""
        units = words(text) or text.split() or [text]
        size = min(self.config.ngram, max(1, len(units)))
        shingles = {" ".join(units[i : i + size]) for i in range(max(1, len(units) - size + 1))}
        codes_S = np.array([zlib.crc32(shingle.encode()) for shingle in shingles], dtype=np.uint64) % PRIME
        lowest_H = np.full(len(self.factors_H), PRIME, dtype=np.uint64)
        for start in range(0, len(codes_S), 4096):
            block_S = codes_S[start : start + 4096]
            hashes_HS = (self.factors_H[:, None] * block_S + self.offsets_H[:, None]) % PRIME
            lowest_H = np.minimum(lowest_H, hashes_HS.min(axis=1))
        return lowest_H


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DedupDocument]
