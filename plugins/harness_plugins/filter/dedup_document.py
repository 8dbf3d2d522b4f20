"""Document-level deduplication: near copies are found by MinHash and dropped."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import ConfigError, Document, Filter, Method, Split, hookimpl, ngram_hashes, words

IN_BAND = 32
"""Earlier documents that are compared because they share one band, at most."""


class DedupDocument(Filter):
    """Drops a document whose word n-grams overlap with an earlier one's: MinHash signatures, bands to find
    candidates, and the estimated Jaccard similarity to decide.

    Paper: Broder 1997; Lee et al. 2021, arXiv:2107.06499; permutations: products with odd numbers modulo
        2**64, Dietzfelbinger et al. 1997
    Differs: of the documents that share a band, only the first and the latest are compared, IN_BAND in all,
        so that pages from one template cost no more the more there are; a copy also shares bands with its
        original that the template does not fill
    Error: the estimate of a similarity s has standard deviation sqrt(s (1 - s) / (bands * rows)); a pair is
        compared with probability 1 - (1 - s ** rows) ** bands, 0.61 at 0.7 and 0.95 at 0.8 by default
    State: 4 bytes a hash and some 150 a band of each document kept (3 kB at the defaults); `compared` counts
        comparisons
    """

    name = "dedup_document"
    remembers = True

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

    def prepare(self) -> None:
        number = self.config.bands * self.config.rows
        rng = np.random.default_rng(0)
        self.factors_H = rng.integers(2**63, size=number, dtype=np.uint64) * 2 + 1
        self.signatures = np.empty((1024, number), dtype=np.uint32)
        self.kept = self.compared = 0
        self.whole: set[bytes] = set()
        self.buckets: list[dict[int, int | list[int]]] = [{} for _ in range(self.config.bands)]

    def state(self) -> dict[str, np.ndarray]:
        return {"signatures": self.signatures[: self.kept], "compared": np.array(self.compared)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        for signature_H in state["signatures"]:
            self._keep(signature_H)
        self.compared = int(state["compared"])

    def judge(self, document: Document) -> Document | str:
        signature_H = self.signature(document.text)
        if _whole(signature_H) in self.whole:
            return "near copy"
        keys = self._keys(signature_H)
        candidates_C = list({index for band, key in enumerate(keys) for index in self._bucket(band, key)})
        self.compared += len(candidates_C)
        if candidates_C:
            same_C = (self.signatures[candidates_C] == signature_H).mean(axis=1)
            if (same_C >= self.config.threshold).any():
                return "near copy"
        self._keep(signature_H)
        return document

    def _keys(self, signature_H: np.ndarray) -> list[int]:
        """A hash of each band; of two with one hash the signatures are compared and differ."""
        return [hash(band.tobytes()) for band in np.split(signature_H, self.config.bands)]

    def _keep(self, signature_H: np.ndarray) -> None:
        """Remember a document that stays."""
        for band, key in enumerate(self._keys(signature_H)):
            self._add(band, key)
        if self.kept == len(self.signatures):
            self.signatures = np.concatenate([self.signatures, np.empty_like(self.signatures)])
        self.signatures[self.kept] = signature_H
        self.kept += 1
        self.whole.add(_whole(signature_H))

    def _bucket(self, band: int, key: int) -> Sequence[int]:
        """Earlier documents that share a band; most bands are shared by nobody, and hold one number."""
        found = self.buckets[band].get(key, ())
        return (found,) if isinstance(found, int) else found

    def _add(self, band: int, key: int) -> None:
        bucket = self.buckets[band]
        if key not in bucket:
            bucket[key] = self.kept
            return
        found = [*self._bucket(band, key), self.kept]
        if len(found) > IN_BAND:
            del found[IN_BAND // 2]
        bucket[key] = found

    def signature(self, text: str) -> np.ndarray:
        """Least hash of the document's shingles under each of the H permutations, its upper 32 bits."""
        units = words(text) or text.split() or [text]
        codes_S = np.array([zlib.crc32(unit.encode()) for unit in units], dtype=np.uint64)
        codes_S = ngram_hashes(codes_S, min(self.config.ngram, len(units)))
        lowest_H = np.full(len(self.factors_H), np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(codes_S), 4096):
            hashes_HS = self.factors_H[:, None] * codes_S[start : start + 4096]
            lowest_H = np.minimum(lowest_H, hashes_HS.min(axis=1))
        return (lowest_H >> np.uint64(32)).astype(np.uint32)


def _whole(signature_H: np.ndarray) -> bytes:
    return hashlib.blake2b(signature_H.tobytes(), digest_size=8).digest()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DedupDocument]
