"""Which choices a stage that learns from preferences depends on."""

from __future__ import annotations

from harness.method import Choice
from harness.stage import Choices


def without_conversations(choices: Choices) -> Choices:
    """The choices less the instruction source, where the feedback brings prompts of its own."""
    feedback = choices.get("feedback")
    if isinstance(feedback, Choice) and not feedback.method.reads_conversations:  # type: ignore[attr-defined]
        return {axis: choice for axis, choice in choices.items() if axis != "instruction"}
    return choices
