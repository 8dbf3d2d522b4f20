"""Messages as chat endpoints write them: text or parts, calls of tools and their answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.axes.instruction import Role, Turn
from harness.errors import DataError

ROLES = {
    "system": Role.system,
    "developer": Role.system,
    "user": Role.user,
    "human": Role.user,
    "prompter": Role.user,
    "assistant": Role.assistant,
    "gpt": Role.assistant,
    "chatgpt": Role.assistant,
    "model": Role.assistant,
    "bot": Role.assistant,
    "bing": Role.assistant,
    "bard": Role.assistant,
    "tool": Role.tool,
    "function": Role.tool,
    "ipython": Role.tool,
    "observation": Role.tool,
}
"""Names of roles in use, in small letters; `developer` is what newer endpoints call the system."""

SPEAKER_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value", "text", "parts")
"""Where a message names its speaker and holds its text, in the formats in use."""

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class NoTextError(DataError):
    """A message holds an image, a sound or a file, which a language model cannot read."""

    def __init__(self, where: str, kind: str) -> None:
        super().__init__(f"{where}: a part of type '{kind}' is no text")
        self.kind = kind


def turns_of(messages: Any, where: str) -> list[Turn]:
    """The turns of a list of messages, which tables may hold as JSON text.

    Raises: DataError naming place and message where one is not a message; NoTextError where one holds more
    """
    messages = messages_in(messages)
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise DataError(f"{where}: messages must be a list, not {type(messages).__name__}")
    return [_turn(message, f"{where}, message {place}") for place, message in enumerate(messages)]


def _turn(message: Any, where: str) -> Turn:
    speaker = _first(message, SPEAKER_KEYS)
    if speaker is None:
        raise DataError(f"{where}: needs messages: [{{role: system|user|assistant|tool, content}}]")
    role = ROLES.get(str(speaker).lower())
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


def spoken_turns(text: str, where: str) -> list[Turn]:
    """The turns of a dialogue in one text, after "Human:" and "Assistant:" at the start of paragraphs (HH).

    Raises: DataError where nobody speaks
    """
    parts = _SPEAKER.split(text.replace("\r\n", "\n"))[1:]
    if not parts:
        raise DataError(f"{where}: a dialogue needs '\\n\\nHuman:' and '\\n\\nAssistant:', or give a prompt")
    roles = {"Human": Role.user, "Assistant": Role.assistant}
    return [
        Turn(role=roles[who], text=said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def plain_text(value: Any) -> str | None:
    """The text of a value: itself, a number's digits, nothing for null and NaN; None where it is no text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def text_of_content(content: Any, where: str) -> str:
    """The text of a message's content: a string, null (a call of tools), or parts that are text.

    Raises: NoTextError where a part is an image, a sound or a file, DataError where it is something else
    """
    found = plain_text(content)
    return _joined_parts(content, where) if found is None else found


def _joined_parts(content: Any, where: str) -> str:
    if not isinstance(content, Sequence):
        raise DataError(f"{where}: content must be text, parts or null, not {type(content).__name__}")
    found = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if text is None and isinstance(part, Mapping):
            text = part.get("refusal")
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise NoTextError(where, str(kind))
        found.append(text)
    return "".join(found)


def messages_in(value: Any) -> Any:
    """The messages that a text holds as JSON, as tables have them; the value itself where it is none such."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if all(_first(message, SPEAKER_KEYS) is not None for message in found) else value


def _first(message: Any, keys: Sequence[str]) -> Any:
    """What stands under the first of some keys that a message has; None where it is none, or has none."""
    if not isinstance(message, Mapping):
        return None
    return next((message[key] for key in keys if message.get(key) is not None), None)


def plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call or a schema without the nulls that a column of a table adds."""
    return {key: _plain(value) for key, value in call.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_call(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
