"""Dolly's format: instruction, context, response, category."""

from collections.abc import Iterator
from typing import Any

from harness import Method, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of


class Dolly(Reader):
    """JSON Lines of {instruction, context, response, category}; the category is the source.

    Paper: Conover et al. 2023, Free Dolly
    """

    name = "dolly"
    sample_name = "sample.jsonl"
    sample = (
        '{"instruction": "Who wrote it?", "context": "Ada wrote it.", "response": "Ada.", '
        '"category": "closed_qa"}\n'
        '{"instruction": "Name a fish.", "context": "", "response": "A carp.", "category": "open_qa"}\n'
    )

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            context = text_of(row, "context", default="")
            prompt = text_of(row, "instruction") + (f"\n\n{context}" if context.strip() else "")
            yield text_of(row, "category", default="dolly"), pair(prompt, text_of(row, "response"))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Dolly]
