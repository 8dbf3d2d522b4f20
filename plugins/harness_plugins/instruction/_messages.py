"""Files of messages, whatever key they stand under."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from harness import DataError, NoTextError, Role, Turn, plain_call, plain_text, turns_of
from harness_plugins.instruction._reader import Parsed, Reader

KEYS = ("messages", "conversation", "conversations", "data")
"""Where the messages of an entry stand; `data` holds bare texts in turn, as UltraChat's first files do."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where endpoints put what the assistant thought before its answer."""
UNTOLD = "whose reasoning beside the answer is not learned"
SYSTEM = ("system", "system_prompt")
"""Where an entry may say what the system says before its messages."""


class MessagesReader(Reader):
    """Entries of {messages: [{role, content, tool_calls}], tools}, or of {prompt, completion}, each text or
    messages; the file, or `source`, is the source.
    """

    source: ClassVar[str] = ""
    """Source of all conversations; empty takes what the entry says, or the file's name."""

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            try:
                turns = self.turns(row)
            except NoTextError as error:
                self._count(f"that hold a part of type '{error.kind}'")
                continue
            source = self.source or row.get("source") or row["#"].rpartition("/")[2].partition(".")[0]
            yield str(source), [*system_turn(row, turns), *turns], _tools(row.get("tools"), row["#"])

    def turns(self, row: dict[str, Any]) -> list[Turn]:
        """The turns of an entry; none where its messages are null.

        Raises: DataError where it has no messages
        """
        key = next((key for key in KEYS if row.get(key) is not None), None)
        if key is not None:
            messages = row[key]
            if key == "data" and isinstance(messages, list) and all(isinstance(m, str) for m in messages):
                roles = ("user", "assistant")
                messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(messages)]
            if isinstance(messages, list) and any(
                m.get(name) for m in messages if isinstance(m, Mapping) for name in REASONING
            ):
                self._count(UNTOLD)
            return turns_of(messages, row["#"])
        if {"prompt", "completion"} <= row.keys():
            parts = (("prompt", Role.user), ("completion", Role.assistant))
            return [turn for name, role in parts for turn in _said(row[name], role, row["#"])]
        if any(key in row for key in KEYS):
            return []
        keys = sorted(set(row) - {"#"})
        raise DataError(
            f"{row['#']}: needs messages: [{{role, content}}], under one of {', '.join(KEYS)}, or prompt and "
            f"completion; has only {keys}"
        )


def system_turn(row: Mapping[str, Any], turns: Sequence[Turn]) -> list[Turn]:
    """What an entry's system says, where it stands beside the messages and not in them."""
    text = next((row[key] for key in SYSTEM if isinstance(row.get(key), str) and row[key].strip()), "")
    inside = any(turn.role is Role.system for turn in turns)
    return [Turn(role=Role.system, text=text)] if text and not inside else []


def _said(value: Any, role: Role, where: str) -> list[Turn]:
    """One text of a speaker, or messages."""
    text = plain_text(value)
    return turns_of(value, where) if text is None else [Turn(role=role, text=text.strip())]


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
    return [plain_call(tool) for tool in given]
