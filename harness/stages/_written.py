"""What a strategy wrote: kept beside the model, as messages that can be read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.axes.instruction import Conversation
from harness.data.message_form import MessageForm

WRITTEN = "written.jsonl"
"""File of an artifact of instruct; `instruction=messages instruction.path=...` reads it."""


def keep_written(
    conversations: Sequence[Conversation], given: Sequence[Conversation], folder: Path
) -> dict[str, int]:
    """Write the conversations whose id is none of the `given` ones, if any, and say how many they are."""
    known = {conversation.id for conversation in given}
    rows = [
        {
            "id": conversation.id,
            "source": conversation.source,
            "messages": [MessageForm().message(turn) for turn in conversation.turns],
            **({"tools": list(conversation.tools)} if conversation.tools else {}),
        }
        for conversation in conversations
        if conversation.id not in known
    ]
    if not rows:
        return {}
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / WRITTEN).write_text("".join(lines), encoding="utf-8")
    return {"written_conversations": len(rows)}
