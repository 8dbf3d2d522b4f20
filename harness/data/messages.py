"""Messages as chat endpoints write them: text or parts, calls of tools and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.axes.instruction import Role, Turn
from harness.errors import DataError

ROLES = {
    "system": Role.system,
    "developer": Role.system,
    "user": Role.user,
    "human": Role.user,
    "assistant": Role.assistant,
    "gpt": Role.assistant,
    "model": Role.assistant,
    "tool": Role.tool,
    "function": Role.tool,
}
"""Names of roles in use; `developer` is what newer endpoints call the system."""

SPEAKER_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value", "text")
"""Where a message names its speaker and holds its text, in the formats in use."""


def turns_of(messages: Any, where: str) -> list[Turn]:
    """The turns of a list of messages.

    Raises: DataError naming place and message where one is not a message, or holds more than text
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise DataError(f"{where}: messages must be a list, not {type(messages).__name__}")
    return [_turn(message, f"{where}, message {place}") for place, message in enumerate(messages)]


def _turn(message: Any, where: str) -> Turn:
    speaker = _first(message, SPEAKER_KEYS)
    if speaker is None:
        raise DataError(f"{where}: needs messages: [{{role: system|user|assistant|tool, content}}]")
    role = ROLES.get(str(speaker))
    if role is None:
        raise DataError(f"{where}: unknown role '{speaker}'; known: {', '.join(ROLES)}")
    calls = message.get("tool_calls") or ()
    if not calls and message.get("function_call"):
        calls = ({"type": "function", "function": message["function_call"]},)
    if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
        raise DataError(f"{where}: tool_calls must be a list of {{id, type, function: {{name, arguments}}}}")
    return Turn(
        role=role,
        text=text_of_content(_first(message, TEXT_KEYS), where),
        tool_calls=tuple(plain_call(call) for call in calls),
        name=str(message.get("name") or "") if role is Role.tool else "",
        tool_call_id=str(message.get("tool_call_id") or ""),
    )


def text_of_content(content: Any, where: str) -> str:
    """The text of a message's content: a string, null (a call of tools), or parts that are text.

    Raises: DataError where a part is an image, a sound or a file, which a language model cannot read
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise DataError(f"{where}: content must be text, parts or null, not {type(content).__name__}")
    found = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if text is None and isinstance(part, Mapping):
            text = part.get("refusal")
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise DataError(f"{where}: a part of type '{kind}' is no text")
        found.append(text)
    return "".join(found)


def _first(message: Any, keys: Sequence[str]) -> Any:
    """What stands under the first of some keys that a message has; None where it is none, or has none."""
    if not isinstance(message, Mapping):
        return None
    return next((message[key] for key in keys if message.get(key) is not None), None)


def plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call or a schema without the nulls that a column of a table adds."""
    return {
        key: plain_call(value) if isinstance(value, Mapping) else value
        for key, value in call.items()
        if value is not None
    }
