"""ShareGPT's format: conversations of people with a chat model."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness import Method, hookimpl
from harness_plugins.instruction._messages import MessagesReader
from harness_plugins.instruction._reader import Parsed


class ShareGpt(MessagesReader):
    """A JSON list of {id, conversations: [{from, value}]}, as Vicuna was trained on; `system` and `tools` may
    stand beside them.

    Differs: leading answers are dropped, and a conversation ends before two turns of one speaker
    """

    name = "sharegpt"
    sample = """[
      {"id": "a", "conversations": [
        {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello, how can I help?"},
        {"from": "human", "value": "Name a river."}, {"from": "gpt", "value": "The Elbe."}]},
      {"id": "b", "conversations": [{"from": "gpt", "value": "Cut off"},
        {"from": "human", "value": "Once more"}, {"from": "gpt", "value": "Here it is."}]}
    ]"""

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for parsed in super().parse(rows):
            if parsed is not None:
                _, turns, *tools = parsed
                yield "sharegpt", [replace(turn, text=turn.text.strip()) for turn in turns], *tools


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ShareGpt]
