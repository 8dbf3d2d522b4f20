"""Messages as chat endpoints write them: text or parts, calls of tools and their answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import DataError, Role, Turn
from harness_plugins.instruction._reader import Parsed, Reader

KEYS = ("messages", "conversation", "conversations", "data")
"""Where the messages of an entry stand; `data` holds bare texts in turn, as UltraChat's first files do."""

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

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where endpoints put what the assistant thought before its answer."""
UNTOLD = "whose reasoning beside the answer is not learned"


def turns_of(messages: Any, where: str) -> list[Turn]:
    """The turns of a list of messages.

    Raises: DataError naming place and message where one is not a message, or holds more than text
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise DataError(f"{where}: messages must be a list, not {type(messages).__name__}")
    return [_turn(message, f"{where}, message {place}") for place, message in enumerate(messages)]


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping) or "role" not in message:
        raise DataError(f"{where}: needs messages: [{{role: system|user|assistant|tool, content}}]")
    role = ROLES.get(str(message["role"]))
    if role is None:
        raise DataError(f"{where}: unknown role '{message['role']}'; known: {', '.join(ROLES)}")
    calls = message.get("tool_calls") or ()
    if not calls and message.get("function_call"):
        calls = ({"type": "function", "function": message["function_call"]},)
    if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
        raise DataError(f"{where}: tool_calls must be a list of {{id, type, function: {{name, arguments}}}}")
    return Turn(
        role=role,
        text=text_of_content(message.get("content"), where),
        tool_calls=tuple(_plain(call) for call in calls),
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


def _plain(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call without the nulls that a column of a table adds."""
    return {
        key: _plain(value) if isinstance(value, Mapping) else value
        for key, value in call.items()
        if value is not None
    }


class MessagesReader(Reader):
    """Entries of {messages: [{role, content, tool_calls}], tools}; the file, or `source`, is the source."""

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            key = next((key for key in KEYS if row.get(key) is not None), None)
            if key is None:
                keys = sorted(set(row) - {"#"})
                raise DataError(
                    f"{row['#']}: needs messages: [{{role, content}}], under one of {', '.join(KEYS)}; has "
                    f"only {keys}"
                )
            messages = row[key]
            if key == "data" and isinstance(messages, list) and all(isinstance(m, str) for m in messages):
                roles = ("user", "assistant")
                messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(messages)]
            source = row.get("source") or row["#"].rpartition("/")[2].partition(".")[0]
            turns = turns_of(messages, row["#"])
            if any(message.get(name) for message in messages for name in REASONING):
                self._count(UNTOLD)
            yield str(source), turns, _tools(row.get("tools"), row["#"])


def _tools(given: Any, where: str) -> list[Mapping[str, Any]]:
    """The schemas of tools, which some files hold as JSON text."""
    if isinstance(given, str):
        try:
            given = json.loads(given or "[]")
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: tools are no JSON: {error.msg}") from error
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(tool, Mapping) for tool in given):
        raise DataError(f"{where}: tools must be a list of JSON schemas")
    return [_plain(tool) for tool in given]
