"""Which choices a stage that learns from preferences depends on, and what it cannot be without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.method import Choice, Problem
from harness.stage import Choices

if TYPE_CHECKING:
    from harness.compose import Cell


def without_conversations(choices: Choices) -> Choices:
    """The choices less the instruction source, where the feedback brings prompts of its own."""
    feedback = choices.get("feedback")
    if isinstance(feedback, Choice) and not _reads_conversations(feedback):
        return {axis: choice for axis, choice in choices.items() if axis != "instruction"}
    return choices


def without_prompts(cell: Cell, stage: str, *, pairs: bool) -> Iterator[Problem]:
    """That a stage's prompts come from instruction data, and there are none; `pairs` says whether it learns
    from what the feedback gives."""
    feedback = cell.choice("feedback", stage=stage) if pairs else None
    if cell.choice("instruction", stage=stage) is None and (
        feedback is None or _reads_conversations(feedback)
    ):
        ways = ", or pairs of your own, feedback=preferences feedback.path=FILE" if pairs else ""
        yield Problem(
            where="instruction",
            message=f"instruction=none leaves {stage} without prompts; choose e.g. instruction=task{ways}",
        )


def _reads_conversations(feedback: Choice) -> bool:
    return bool(feedback.method.reads_conversations)  # type: ignore[attr-defined]
