"""Text that documents share with other texts: word n-grams, as GPT-3's authors compared them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

SHORTEST = 8
"""Words of the shortest text that is looked for; fewer are found by chance."""
UNSPACED = (
    r"\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # Japanese, Chinese, Korean
)
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
"""A word, or one character of a script that puts no spaces between words."""
FACTOR = 0x9E3779B97F4A7C15
UNKNOWN = 0
"""Code of a word that no text holds."""


def words(text: str) -> list[str]:
    """Lower-case words without punctuation, whichever way accents, ligatures and wide letters are coded."""
    return WORD.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())


class Overlap:
    """The word n-grams of texts, to be found in documents.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams, 8 words at least)
    Differs: a text of 8 to n - 1 words is looked for as a whole, which GPT-3 left; a character of a script
        without spaces is a word
    Error: n-grams are told apart by 64-bit hashes: of 1e9 n-grams against 1e7, one in a thousand runs errs
    """

    def __init__(self, texts: Iterable[str], *, ngram: int) -> None:
        self.codes: dict[str, int] = {}
        # One buffer for all texts: an array of each would leave as much memory again in holes between them.
        found: defaultdict[int, array[int]] = defaultdict(partial(array, "Q"))
        for text in texts:
            own = words(text)
            size = min(ngram, len(own))
            if size >= min(ngram, SHORTEST):
                codes = [self.codes.setdefault(word, 0) or self._learn(word) for word in own]
                found[size].frombytes(ngram_hashes(np.array(codes, dtype=np.uint64), size).tobytes())
        self.known = {
            size: distinct(np.frombuffer(hashes, dtype=np.uint64)) for size, hashes in sorted(found.items())
        }
        """Sorted hashes of n-grams, by their number of words."""

    def __len__(self) -> int:
        return sum(len(hashes) for hashes in self.known.values())

    def of(self, text: str) -> np.ndarray:
        """Numbers below len(self) of the known n-grams in a text, each as often as it stands there."""
        return self._of(words(text))

    def share(self, text: str) -> float:
        """Share of a text's n-grams that are known, at most 1; 0 where it is too short to have one."""
        own = words(text)
        size = min((size for size in self.known if size <= len(own)), default=0)
        return min(1.0, len(self._of(own)) / (len(own) - size + 1)) if size else 0.0

    def state(self) -> dict[str, np.ndarray]:
        """All that is known, as arrays."""
        known = "\n".join(self.codes).encode(errors="surrogatepass")
        hashes = {str(size): own for size, own in self.known.items()}
        return {"words": np.frombuffer(known, dtype=np.uint8), **hashes}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Know what `state` gave, and nothing else."""
        known = state["words"].tobytes().decode(errors="surrogatepass")
        self.codes.clear()
        for word in known.split("\n") if known else ():
            self._learn(word)
        self.known = {int(size): state[size] for size in state if size != "words"}

    def _of(self, own: list[str]) -> np.ndarray:
        codes = np.fromiter((self.codes.get(word, UNKNOWN) for word in own), dtype=np.uint64)
        hits, first = [np.empty(0, dtype=np.int64)], 0
        for size, known in self.known.items():
            first += len(known)
            if len(codes) < size:
                continue
            strange = np.concatenate([[0], np.cumsum(codes == UNKNOWN)])
            fits = strange[size:] == strange[:-size]
            if not fits.any():
                continue
            own = ngram_hashes(codes, size)[fits]
            places = np.minimum(np.searchsorted(known, own), len(known) - 1)
            hits.append(places[known[places] == own] + first - len(known))
        return np.concatenate(hits)

    def _learn(self, word: str) -> int:
        code = int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest())
        self.codes[word] = code or 1
        return self.codes[word]


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, sorted in place, once each."""
    values.sort()
    found: np.ndarray = values[np.concatenate([values[:1] == values[:1], values[1:] != values[:-1]])]
    return found


def ngram_hashes(codes: np.ndarray, size: int) -> np.ndarray:
    """A hash of every `size` consecutive words: a polynomial of their codes (uint64), modulo 2**64."""
    count = len(codes) - size + 1
    total = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        total = total * np.uint64(FACTOR) + codes[place : place + count]
    return total
