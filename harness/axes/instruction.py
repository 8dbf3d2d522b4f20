"""Instruction: where instruction data comes from and how it is written out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.axes.corpus import Document, Split
from harness.method import Method


class Role(StrEnum):
    """Who speaks."""

    system = "system"
    user = "user"
    assistant = "assistant"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns with their origin; only assistant turns are learned from."""

    id: str
    turns: tuple[Turn, ...]
    source: str
    """Data set or task family, which strategies weigh."""
    split: Split = Split.train
    checks: dict[str, object] = field(default_factory=dict)
    """Machine-checkable constraints on the answer, e.g. {"max_words": 5}; empty where there are none."""


class Instruction(Method):
    """A source of conversations.

    State: none; the same options, documents and seed yield the same conversations
    """

    axis = "instruction"
    default = "task"
    optional = True

    @classmethod
    def trial(cls, directory: Path) -> Method.Config:
        """Options the conformance suite runs it with; writes the small input it needs into `directory`."""
        return cls.Config()

    @abstractmethod
    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        """All conversations of all splits; `documents` are those of the corpus stage."""
        raise NotImplementedError
