"""Anthropic's helpful and harmless format: whole dialogues in one text."""

from collections.abc import Iterator
from typing import Any

from harness import Method, hookimpl, spoken_turns
from harness_plugins.instruction._reader import Parsed, Reader, text_of


class Hh(Reader):
    """JSON Lines of {chosen, rejected}; the chosen dialogue is learned from.

    Paper: Bai et al. 2022, arXiv:2204.05862
    """

    name = "hh"
    sample_name = "sample.jsonl"
    sample = (
        '{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!\\n\\nHuman: A joke?\\n\\nAssistant: Later.", '
        '"rejected": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!\\n\\nHuman: A joke?\\n\\nAssistant: No."}\n'
    )

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            text = text_of(row, "chosen")
            yield "hh", spoken_turns(text, row["#"]) if text.strip() else []


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Hh]
