"""Keyword filter: markup, boilerplate and words that nobody wants."""

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path

from harness import ConfigError, Document, Filter, Method, Split, hookimpl


class Action(Enum):
    """What happens where a keyword is found."""

    drop = "drop"
    """The document goes."""
    remove_lines = "remove_lines"
    """Lines with the keyword go, and the document if nothing is left."""


class Keyword(Filter):
    """Regular expressions (HTML tags, boilerplate) and words (offensive ones, say), counted.

    Paper: survey section 4.1.2; Raffel et al. 2019, arXiv:1910.10683, section 2.2 (C4's rules)
    """

    name = "keyword"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        patterns: list[str] = field(
            default_factory=lambda: [
                r"</?(?:a|body|br|div|font|head|html|img|li|p|script|span|style|table|td|tr|ul)\b[^<>]*>",
                r"lorem ipsum",
                r"(?:enable|requires?) javascript",
                r"(?:accept|uses?) cookies",
                r"all rights reserved",
            ]
        )
        """Regular expressions, case ignored."""
        words: list[str] = field(default_factory=list)
        """Whole words, case ignored."""
        max_count: int = 0
        """Hits that a document may have."""
        action: Action = Action.drop
        """What happens above `max_count`."""

        def __post_init__(self) -> None:
            for pattern in self.patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ConfigError(
                        f"filter.keyword.patterns: '{pattern}' is no regular expression: {error}"
                    ) from error
            if not self.patterns and not self.words:
                raise ConfigError("filter.keyword needs patterns or words; both are empty")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        return (
            cls.Config(words=["spam"]),
            Document(id="plain", text="x < y and y > z; no spammer here\n", domain="docs", split=Split.train),
            Document(id="html", text="<div class='a'>Buy\nSpam!</div>\n", domain="docs", split=Split.train),
        )

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """All keywords in one expression."""
        words = [rf"\b{re.escape(word)}\b" for word in self.config.words]
        return re.compile("|".join(f"(?:{part})" for part in [*self.config.patterns, *words]), re.IGNORECASE)

    def judge(self, document: Document) -> Document | str:
        if len(self.expression.findall(document.text)) <= self.config.max_count:
            return document
        if self.config.action is Action.drop:
            return "keyword"
        lines = document.text.splitlines(keepends=True)
        text = "".join(line for line in lines if not self.expression.search(line))
        return replace(document, text=text) if text.strip() else "nothing but keywords"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Keyword]
