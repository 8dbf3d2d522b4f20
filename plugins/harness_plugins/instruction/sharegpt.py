"""ShareGPT's format: conversations of people with a chat model."""

from dataclasses import replace
from typing import Any

from harness import Method, Turn, hookimpl
from harness_plugins.instruction._messages import MessagesReader


class ShareGpt(MessagesReader):
    """A JSON list of {id, conversations: [{from, value}]}, as Vicuna was trained on; `system` and `tools` may
    stand beside them.

    Differs: leading answers are dropped, and a conversation ends before two turns of one speaker
    """

    name = "sharegpt"
    source = "sharegpt"
    sample = """[
      {"id": "a", "conversations": [
        {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello, how can I help?"},
        {"from": "human", "value": "Name a river."}, {"from": "gpt", "value": "The Elbe."}]},
      {"id": "b", "conversations": [{"from": "gpt", "value": "Cut off"},
        {"from": "human", "value": "Once more"}, {"from": "gpt", "value": "Here it is."}]}
    ]"""

    def turns(self, row: dict[str, Any]) -> list[Turn]:
        return [replace(turn, text=turn.text.strip()) for turn in super().turns(row)]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ShareGpt]
