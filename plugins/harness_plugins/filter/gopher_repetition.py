"""Gopher's repetition rules: lines, paragraphs and n-grams that come again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Document, Method, Split, hookimpl
from harness_plugins.filter._datatrove import Datatrove


class GopherRepetition(Datatrove):
    """Drops documents in which too much comes again.

    Paper: Rae et al. 2021, arXiv:2112.11446, table A1, as datatrove has it
    """

    name = "gopher_repetition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Datatrove.Config):
        max_line_share: float = 0.3
        """Share of lines that may repeat an earlier one (0 to 1)."""
        max_paragraph_share: float = 0.3
        """The same of paragraphs."""
        max_line_character_share: float = 0.2
        """Share of characters that may stand in such lines (0 to 1)."""
        max_paragraph_character_share: float = 0.2
        """The same in such paragraphs."""
        max_top_shares: dict[int, float] = field(default_factory=lambda: {2: 0.2, 3: 0.18, 4: 0.16})
        """Words of an n-gram -> share of characters that the most frequent one may fill (0 to 1)."""
        max_repeated_shares: dict[int, float] = field(
            default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
        )
        """Words of an n-gram -> share of characters that all repeated ones may fill (0 to 1)."""

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        lines = [f"Line {number} speaks of subject {number * 7 % 31} alone." for number in range(20)]
        good = (  # in a text of few words every n-gram fills a large share
            "The ship left at noon with nine men, forty barrels of salt and a clock that nobody could wind. "
            "Rain fell before dusk, so they anchored near an island whose harbour had no name on any map."
        )
        return (
            cls.Config(),
            Document(id="good", text=good, domain="docs", split=Split.train),
            Document(id="twice", text="\n".join([*lines, *lines]), domain="docs", split=Split.train),
        )

    def build(self) -> Any:
        from datatrove.pipeline.filters import GopherRepetitionFilter

        return GopherRepetitionFilter(
            dup_line_frac=self.config.max_line_share,
            dup_para_frac=self.config.max_paragraph_share,
            dup_line_char_frac=self.config.max_line_character_share,
            dup_para_char_frac=self.config.max_paragraph_character_share,
            top_n_grams=tuple(self.config.max_top_shares.items()),
            dup_n_grams=tuple(self.config.max_repeated_shares.items()),
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GopherRepetition]
