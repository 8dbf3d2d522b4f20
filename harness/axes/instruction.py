"""Instruction: where instruction data comes from and how it is written out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.axes.corpus import Document, Split
from harness.method import Method


class Role(StrEnum):
    """Who speaks."""

    system = "system"
    user = "user"
    assistant = "assistant"
    tool = "tool"
    """What a tool that the assistant called has answered."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Calls an assistant makes, as chat endpoints write them: {type, function: {name, arguments}}."""
    name: str = ""
    """Name of the tool that answers."""
    tool_call_id: str = ""
    """The call that a tool's answer belongs to."""


Prompt = str | tuple[Turn, ...]
"""What an answer follows: one message of a user, or all turns before the answer."""


def as_turns(prompt: Prompt) -> tuple[Turn, ...]:
    """The turns of a prompt; a text is one message of a user."""
    return (Turn(role=Role.user, text=prompt),) if isinstance(prompt, str) else prompt


def as_text(prompt: Prompt) -> str:
    """A prompt for a reader that takes plain text: the user's message, or all turns with who spoke them."""
    turns = as_turns(prompt)
    if len(turns) == 1:
        return turns[0].text
    return "\n\n".join(f"{turn.role.value.capitalize()}: {turn.text}" for turn in turns)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns with their origin; only assistant turns are learned from."""

    id: str
    turns: tuple[Turn, ...]
    source: str
    """Data set or task family, which strategies weigh."""
    split: Split = Split.train
    checks: dict[str, object] = field(default_factory=dict)
    """Machine-checkable constraints on the last answer, e.g. {"max_words": 5}; empty where there are none."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the tools the assistant may call."""


class Instruction(Method):
    """A source of conversations.

    State: none; the same options, documents and seed yield the same conversations; `left_out` counts the
        entries that were read and gave none, by reason
    """

    axis = "instruction"
    default = "task"
    optional = True
    moves_facts = frozenset({"counts", "template"})

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.left_out: dict[str, int] = {}

    @classmethod
    def trial(cls, directory: Path) -> Method.Config:
        """Options the conformance suite runs it with; writes the small input it needs into `directory`."""
        return cls.Config()

    @classmethod
    def has_checks(cls, config: Any) -> bool:
        """Whether answers come with constraints that code can check, which `rules` and `rule` live on."""
        return True

    @abstractmethod
    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        """All conversations of all splits; `documents` are those of the corpus stage."""
        raise NotImplementedError
