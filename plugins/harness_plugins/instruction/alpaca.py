"""Alpaca's format: instruction, input, output."""

from collections.abc import Iterator
from typing import Any

from harness import DataError, Method, Turn, hookimpl
from harness_plugins.instruction._messages import system_turn
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of


class Alpaca(Reader):
    """A JSON list of {instruction, input, output}; the input follows the instruction.

    LLaMA-Factory's `system` and `history` ([[question, answer], ...]) come before it.
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
            turns = [*_before(row), *pair(prompt, text_of(row, "output"))]
            yield "alpaca", [*system_turn(row, turns), *turns]


def _before(row: dict[str, Any]) -> list[Turn]:
    """What was asked and answered before.

    Raises: DataError naming the entry where it is no list of pairs of texts
    """
    turns = []
    for exchange in row.get("history") or []:
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            raise DataError(f"{row['#']}: history must be a list of [question, answer]")
        turns += pair(*exchange)
    return turns


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Alpaca]
