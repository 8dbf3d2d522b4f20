"""FineWeb's own quality rules: punctuated lines, long lines, few repeated ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Document, Method, Split, hookimpl
from harness_plugins.filter._datatrove import Datatrove


class FineWeb(Datatrove):
    """Drops pages of unfinished, short or repeated lines: lists and menus.

    Paper: Penedo et al. 2024, arXiv:2406.17557, section 3.5, as datatrove has it
    """

    name = "fineweb"

    @dataclass(frozen=True, kw_only=True)
    class Config(Datatrove.Config):
        min_punctuated_share: float = 0.12
        """Share of lines that must end in punctuation (0 to 1)."""
        short_line: int = 30
        """Characters of the longest short line."""
        max_short_share: float = 0.67
        """Share of lines that may be short (0 to 1)."""
        max_repeated_share: float = 0.01
        """Share of characters that may stand in repeated lines (0 to 1)."""
        max_newlines_per_word: float = 0.3
        """Most line ends a word."""

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        good = "\n".join(f"The keeper of house number {number} went to the river." for number in range(6))
        menu = "\n".join(f"Entry {number}" for number in range(20))
        return (
            cls.Config(),
            Document(id="good", text=good, domain="docs", split=Split.train),
            Document(id="menu", text=menu, domain="docs", split=Split.train),
        )

    def build(self) -> Any:
        from datatrove.pipeline.filters import FineWebQualityFilter

        return FineWebQualityFilter(
            line_punct_thr=self.config.min_punctuated_share,
            short_line_length=self.config.short_line,
            short_line_thr=self.config.max_short_share,
            char_duplicates_ratio=self.config.max_repeated_share,
            new_line_ratio=self.config.max_newlines_per_word,
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [FineWeb]
