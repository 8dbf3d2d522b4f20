"""Scaling: more or fewer conversations of the same kind."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, hookimpl


class Scaling(InstructionStrategy):
    """A part of the data of a given size; smaller parts lie within larger ones.

    Paper: survey section 5.1.4 (220K against 82K instructions)
    """

    name = "scaling"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        share: float = 1.0
        """Share of the conversations to learn from (0 to 1]."""

        def __post_init__(self) -> None:
            if not 0 < self.share <= 1:
                raise ConfigError(f"instruction_strategy.share={self.share} must lie in (0, 1]")

    config: Config

    @classmethod
    def trial(cls, sources: Sequence[str]) -> Config:
        return cls.Config(share=0.5)

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        number = max(1, round(self.config.share * len(conversations)))
        ranked = sorted(conversations, key=lambda c: hashlib.sha256(c.id.encode()).digest())
        chosen = {conversation.id for conversation in ranked[:number]}
        return [conversation for conversation in conversations if conversation.id in chosen]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Scaling]
