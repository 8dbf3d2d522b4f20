"""Files of messages, whatever key they stand under."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness import DataError, plain_call, turns_of
from harness_plugins.instruction._reader import Parsed, Reader

KEYS = ("messages", "conversation", "conversations", "data")
"""Where the messages of an entry stand; `data` holds bare texts in turn, as UltraChat's first files do."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where endpoints put what the assistant thought before its answer."""
UNTOLD = "whose reasoning beside the answer is not learned"


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
    return [plain_call(tool) for tool in given]
