"""Difficulty: conversations that are neither too easy nor too hard."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import (
    ConfigError,
    Conversation,
    InstructionStrategy,
    Method,
    Role,
    answer_surprise,
    hookimpl,
    model_ref,
)


class Difficulty(InstructionStrategy):
    """Keeps the band of moderate perplexity of the answers under a model.

    Paper: survey section 5.1.4 (LLaMA-7B perplexity, 70K of 220K kept; thresholds not given)
    Differs: without a model, perplexity is that of the answers' own word frequencies
    """

    name = "difficulty"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        model: str = model_ref()
        """Model whose perplexity counts; empty takes the word frequencies of all answers."""
        lower: float = 0.34
        """Share of the easiest that is dropped (0 to 1)."""
        upper: float = 0.34
        """Share of the hardest that is dropped (0 to 1)."""

        def __post_init__(self) -> None:
            if min(self.lower, self.upper) < 0 or self.lower + self.upper >= 1:
                raise ConfigError(
                    f"instruction_strategy.lower={self.lower} and upper={self.upper} must be at least 0 "
                    "and sum to less than 1"
                )

    config: Config

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        surprise_R = self.surprise(conversations)
        order_R = np.argsort(surprise_R, kind="stable")
        first = int(self.config.lower * len(order_R))
        last = max(first + 1, len(order_R) - int(self.config.upper * len(order_R)))
        return [conversations[index] for index in sorted(order_R[first:last].tolist())]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def surprise(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """Mean surprise of each conversation's answers; log-perplexity, so it orders alike."""
        if self.config.model:
            model, tokenizer = self.models["model"]
            return answer_surprise(model, tokenizer, conversations)
        words = [
            [w for turn in c.turns if turn.role is Role.assistant for w in turn.text.split()]
            for c in conversations
        ]
        counts = Counter(word for answer in words for word in answer)
        total = sum(counts.values())
        return np.array(
            [np.mean([-np.log(counts[word] / total) for word in answer] or [0.0]) for answer in words]
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Difficulty]
