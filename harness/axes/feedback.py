"""Feedback: where preferences come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from harness.axes.instruction import Conversation
from harness.axes.reward import Preference
from harness.method import Method


class Feedback(Method):
    """Turns conversations into preferences."""

    axis = "feedback"
    default = "rule"

    @classmethod
    def trial(cls) -> Method.Config:
        """Options the conformance suite runs it with."""
        return cls.Config()

    @abstractmethod
    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        """Preferences over answers to the conversations' prompts."""
        raise NotImplementedError
