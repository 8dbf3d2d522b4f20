"""Instruction strategy: which conversations are met, how often, in what order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from harness.axes.instruction import Conversation
from harness.method import Method


class InstructionStrategy(Method):
    """Choice, order and repetition of instruction data.

    State: `models` holds (model, tokenizer) of what its ModelRef options name, by option; `facts` what
        `select` found, for the record
    """

    axis = "instruction_strategy"
    default = "proportional"
    moves_facts = frozenset({"counts"})

    writes: ClassVar[bool] = False
    """Whether a model must write for it; suites without one leave it out."""
    models: Mapping[str, tuple[Any, Any]] = MappingProxyType({})
    facts: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def trial(cls, sources: Sequence[str]) -> Method.Config:
        """Options the conformance suite runs it with, on conversations of these sources."""
        return cls.Config()

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        """The conversations to learn from: chosen, rewritten or all; asked once, before the first epoch.

        A rewritten conversation keeps its id and adds a suffix after `#`.
        """
        return list(conversations)

    @abstractmethod
    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        """One epoch: the conversations in the order they are met, repeats included."""
        raise NotImplementedError

    def best_fit(self) -> bool:
        """Whether packed conversations are put where they leave least room, not in their order."""
        return False

    def packs(self) -> bool:
        """Whether several conversations share one sequence (their attention never crosses)."""
        return False

    def pretraining_share(self) -> float:
        """Share of tokens drawn from the pretraining data instead (0 to 1)."""
        return 0.0
