"""Gopher's quality rules: words, symbols, bullets, stop words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ConfigError, Document, Method, Split, hookimpl
from harness_plugins.filter._datatrove import Datatrove


class GopherQuality(Datatrove):
    """Drops documents whose length, words or lines are not those of running English text.

    Paper: Rae et al. 2021, arXiv:2112.11446, section A.1.1, as datatrove has it
    """

    name = "gopher_quality"

    @dataclass(frozen=True, kw_only=True)
    class Config(Datatrove.Config):
        min_words: int = 50
        """Fewest words that are more than punctuation."""
        max_words: int = 100_000
        """Most such words."""
        min_word_length: float = 3.0
        """Least mean length of a word, in characters."""
        max_word_length: float = 10.0
        """Largest mean length."""
        max_symbols_per_word: float = 0.1
        """Most hash signs a word, and most ellipses a word."""
        max_bullet_share: float = 0.9
        """Share of lines that may begin with a bullet (0 to 1)."""
        max_ellipsis_share: float = 0.3
        """Share of lines that may end with an ellipsis (0 to 1)."""
        min_alphabetic_share: float = 0.8
        """Share of words that must hold a letter (0 to 1)."""
        min_stop_words: int = 2
        """Different ones of the, be, to, of, and, that, have, with that must occur."""

        def __post_init__(self) -> None:
            if not 1 <= self.min_words <= self.max_words:
                raise ConfigError(
                    f"filter.gopher_quality.min_words={self.min_words} must be at least 1 and at most "
                    f"max_words={self.max_words}"
                )

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        good = "The keeper of the house went to the river and came back with water that was clean. "
        return (
            cls.Config(),
            Document(id="good", text=good * 5, domain="docs", split=Split.train),
            Document(id="short", text=good, domain="docs", split=Split.train),
        )

    def build(self) -> Any:
        from datatrove.pipeline.filters import GopherQualityFilter

        return GopherQualityFilter(
            min_doc_words=self.config.min_words,
            max_doc_words=self.config.max_words,
            min_avg_word_length=self.config.min_word_length,
            max_avg_word_length=self.config.max_word_length,
            max_symbol_word_ratio=self.config.max_symbols_per_word,
            max_bullet_lines_ratio=self.config.max_bullet_share,
            max_ellipsis_lines_ratio=self.config.max_ellipsis_share,
            max_non_alpha_words_ratio=self.config.min_alphabetic_share,
            min_stop_words=self.config.min_stop_words,
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GopherQuality]
