"""Anthropic's helpful and harmless format: whole dialogues in one text."""

import re
from collections.abc import Iterator
from typing import Any

from harness import DataError, Method, Role, Turn, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, text_of

SPEAKER = re.compile(r"\n\n(Human|Assistant):")


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
            parts = SPEAKER.split(text_of(row, "chosen"))[1:]
            if not parts:
                raise DataError(
                    f"{row['#']}: 'chosen' is no dialogue; it must hold Human: and Assistant: turns"
                )
            speakers, texts = parts[::2], parts[1::2]
            yield (
                "hh",
                [
                    Turn(role=Role.user if speaker == "Human" else Role.assistant, text=text.strip())
                    for speaker, text in zip(speakers, texts, strict=True)
                ],
            )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Hh]
