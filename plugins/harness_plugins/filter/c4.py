"""C4's rules: lines that are sentences, pages that have some of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Document, Method, Split, hookimpl
from harness_plugins.filter._datatrove import Datatrove


class C4(Datatrove):
    """Keeps the lines of a page that end as sentences do, and the pages with enough of them.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 2.2, as datatrove has it
    Differs: without the list of bad words, which is not ours to ship; `keyword` takes one
    """

    name = "c4"
    rewrites = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Datatrove.Config):
        min_sentences: int = 5
        """Fewest sentences of a page, counted in the lines that stay."""
        min_words_per_line: int = 3
        """Fewest words of a line that stays."""
        max_word_length: int = 1000
        """Characters of the longest word of a line that stays."""
        terminal_punctuation: bool = True
        """Whether lines must end in . ! ? or a quotation mark."""
        curly_brackets: bool = False
        """Whether pages may hold a curly bracket, as code does."""

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        good = "\n".join(f"The keeper of house {number} went to the river." for number in range(6))
        return (
            cls.Config(),
            Document(id="good", text=good, domain="docs", split=Split.train),
            Document(id="menu", text=f"Home | About | Contact\n{good}", domain="docs", split=Split.train),
        )

    def build(self) -> Any:
        from datatrove.pipeline.filters import C4QualityFilter

        return C4QualityFilter(
            min_num_sentences=self.config.min_sentences,
            min_words_per_line=self.config.min_words_per_line,
            max_word_length=self.config.max_word_length,
            filter_no_terminal_punct=self.config.terminal_punctuation,
            filter_curly_bracket=not self.config.curly_brackets,
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [C4]
