"""Statistics filter: lengths, symbols, bullets and stop words within the limits of running text."""

import re
import string
from dataclasses import dataclass
from pathlib import Path

from harness import ConfigError, Document, Filter, Method, Split, hookimpl

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))


class Statistics(Filter):
    """Gopher's quality rules, and a limit on punctuation.

    Paper: Rae et al. 2021, arXiv:2112.11446, appendix A1.1; survey section 4.1.2 (punctuation)
    Units: words are separated by whitespace; punctuation alone is no word for counts and mean length
    """

    name = "statistics"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        min_words: int = 50
        """Fewest words."""
        max_words: int = 100_000
        """Most words."""
        min_word_length: float = 3.0
        """Least mean length of a word, characters."""
        max_word_length: float = 10.0
        """Greatest mean length of a word, characters."""
        max_symbol_share: float = 0.1
        """Most `#`, and most ellipses, a word."""
        max_bullet_share: float = 0.9
        """Most lines that start with a bullet (share)."""
        max_ellipsis_share: float = 0.3
        """Most lines that end with an ellipsis (share)."""
        min_letter_share: float = 0.8
        """Fewest words with a letter (share)."""
        min_stop_words: int = 2
        """Fewest different words of `the be to of and that have with`."""
        max_punctuation_share: float = 1.0
        """Most characters that are punctuation (share); 1 sets no limit."""

        def __post_init__(self) -> None:
            if self.min_words > self.max_words:
                raise ConfigError(
                    f"filter.statistics.min_words={self.min_words} is above max_words={self.max_words}"
                )

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        text = (
            "The parser reads the whole of a file and returns a tree that the caller can walk with ease. " * 4
        )
        return (
            cls.Config(),
            Document(id="prose", text=text, domain="docs", split=Split.train),
            Document(id="symbols", text="# * # " * 100, domain="docs", split=Split.train),
        )

    def judge(self, document: Document) -> Document | str:
        limit, text = self.config, document.text
        tokens = text.split()
        words = [token for token in tokens if not set(token) <= PUNCTUATION]
        lines = text.splitlines()
        if not limit.min_words <= len(words) <= limit.max_words:
            return "number of words"
        mean = sum(map(len, words)) / len(words)
        if not limit.min_word_length <= mean <= limit.max_word_length:
            return "length of words"
        for symbol, count in (("#", text.count("#")), ("ellipsis", len(ELLIPSIS.findall(text)))):
            if count / len(tokens) > limit.max_symbol_share:
                return f"share of {symbol}"
        if sum(line.lstrip().startswith(BULLETS) for line in lines) / len(lines) > limit.max_bullet_share:
            return "share of bullets"
        ended = sum(line.rstrip().endswith(("...", "\u2026")) for line in lines)
        if ended / len(lines) > limit.max_ellipsis_share:
            return "share of lines with ellipsis"
        if sum(any(c.isalpha() for c in t) for t in tokens) / len(tokens) < limit.min_letter_share:
            return "share of words with letters"
        if len(STOP_WORDS & set(words)) < limit.min_stop_words:
            return "number of stop words"
        if sum(c in PUNCTUATION for c in text) / len(text) > limit.max_punctuation_share:
            return "share of punctuation"
        return document


PUNCTUATION = frozenset(string.punctuation + "\u2026\u2022\u2013\u2014\u2018\u2019\u201c\u201d")
BULLETS = ("\u2022", "-")
ELLIPSIS = re.compile(r"\.\.\.|\u2026")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Statistics]
