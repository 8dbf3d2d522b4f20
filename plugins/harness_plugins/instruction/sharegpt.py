"""ShareGPT's format: conversations of people with a chat model."""

from collections.abc import Iterator
from typing import Any

from harness import DataError, Method, Role, Turn, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader

ROLES = {
    "human": Role.user,
    "user": Role.user,
    "gpt": Role.assistant,
    "chatgpt": Role.assistant,
    "assistant": Role.assistant,
    "system": Role.system,
}


class ShareGpt(Reader):
    """A JSON list of {id, conversations: [{from, value}]}, as Vicuna was trained on.

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
        for row in rows:
            turns = row.get("conversations")
            if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
                raise DataError(
                    f"{row['#']}: no list of turns under 'conversations', only {sorted(set(row) - {'#'})}"
                )
            found = []
            for turn in turns:
                role = ROLES.get(turn.get("from", ""))
                if role is None or not isinstance(turn.get("value"), str):
                    break
                found.append(Turn(role=role, text=turn["value"].strip()))
            yield "sharegpt", found


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ShareGpt]
