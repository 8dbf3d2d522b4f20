"""Alpaca's format: instruction, input, output."""

from collections.abc import Iterator
from typing import Any

from harness import Method, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of


class Alpaca(Reader):
    """A JSON list of {instruction, input, output}; the input follows the instruction.

    Paper: Taori et al. 2023, Stanford Alpaca
    """

    name = "alpaca"
    sample = """[
      {"instruction": "Name the three primary colors.", "input": "", "output": "Red, yellow and blue."},
      {"instruction": "Translate to German.", "input": "Good morning", "output": "Guten Morgen"}
    ]"""

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            given = text_of(row, "input", default="")
            prompt = text_of(row, "instruction") + (f"\n\n{given}" if given.strip() else "")
            yield "alpaca", pair(prompt, text_of(row, "output"))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Alpaca]
