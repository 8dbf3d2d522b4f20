"""Feedback: where preferences come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from harness.axes.instruction import Conversation
from harness.axes.reward import Preference
from harness.method import Method


class Feedback(Method):
    """Turns conversations into preferences, or brings some.

    State: `left_out` counts what was read and gave no preference, by reason
    """

    axis = "feedback"
    default = "rule"
    reads_conversations: ClassVar[bool] = True
    """Whether preferences are about the prompts of the instruction axis; else it brings its own."""
    reads_checks: ClassVar[bool] = False
    """Whether it says nothing of a conversation without machine-checkable constraints."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.left_out: dict[str, int] = {}

    @classmethod
    def trial(cls) -> Method.Config:
        """Options the conformance suite runs it with; a reader writes a small file of its own."""
        return cls.Config()

    @classmethod
    def labels_single_answers(cls, config: Any) -> bool:
        """Whether it says of single answers that they are good or bad, and compares none."""
        return False

    @abstractmethod
    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        """Preferences over answers to the conversations' prompts, or all it brings, of all splits."""
        raise NotImplementedError
