"""How a turn is handed to a chat template, which differ in what they take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.axes.instruction import Turn


class Silence(StrEnum):
    """What stands for the text of a message that only calls tools."""

    null = "null"
    """As chat endpoints write it."""
    absent = "absent"
    empty = "empty"


@dataclass(frozen=True, kw_only=True)
class MessageForm:
    """A way to write turns as messages."""

    parts: bool = False
    """Whether texts are lists of parts, as templates of models that see images read them."""
    texts: bool = False
    """Whether arguments of calls are JSON text, as some templates append them."""
    silence: Silence = Silence.null

    def message(self, turn: Turn) -> dict[str, Any]:
        """A turn as chat templates read it."""
        message: dict[str, Any] = {"role": turn.role.value}
        silent = bool(turn.tool_calls) and not turn.text
        if silent and self.silence is not Silence.absent:
            message["content"] = None if self.silence is Silence.null else [] if self.parts else ""
        elif not silent:
            message["content"] = [{"type": "text", "text": turn.text}] if self.parts else turn.text
        if turn.tool_calls:
            message["tool_calls"] = [self._call(call) for call in turn.tool_calls]
        extra = {"name": turn.name, "tool_call_id": turn.tool_call_id}
        return message | {key: value for key, value in extra.items() if value}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call.get("function", {}))
        given = function.get("arguments", {})
        if self.texts and not isinstance(given, str):
            function["arguments"] = json.dumps(given)
        elif not self.texts and isinstance(given, str):
            try:
                function["arguments"] = json.loads(given)
            except json.JSONDecodeError:
                function["arguments"] = given
        return {"type": "function", **call, "function": function}
