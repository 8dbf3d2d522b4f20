"""Diversity: the conversations that differ most from each other."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, hookimpl

FEATURES = 512


class Diversity(InstructionStrategy):
    """Greedy k-center choice over hashed, inverse-frequency weighted words of the prompts.

    Paper: survey section 5.1.4 (topic diversity); Sener and Savarese 2018, arXiv:1708.00489 (k-center)
    Differs: the survey rewrites instructions into 293 topics with ChatGPT; this one selects
    """

    name = "diversity"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        share: float = 0.5
        """Share of the conversations to keep (0 to 1]."""

        def __post_init__(self) -> None:
            if not 0 < self.share <= 1:
                raise ConfigError(f"instruction_strategy.share={self.share} must lie in (0, 1]")

    config: Config

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        number = max(1, round(self.config.share * len(conversations)))
        vectors_RF = np.stack([_counts(conversation.turns[0].text) for conversation in conversations])
        vectors_RF *= np.log(len(conversations) / np.maximum(1, (vectors_RF > 0).sum(0))) + 1
        vectors_RF /= np.linalg.norm(vectors_RF, axis=1, keepdims=True).clip(1e-12)
        chosen = [int(rng.integers(len(conversations)))]
        nearest_R = vectors_RF @ vectors_RF[chosen[0]]
        nearest_R[chosen[0]] = np.inf
        while len(chosen) < number:
            chosen.append(int(nearest_R.argmin()))
            nearest_R = np.maximum(nearest_R, vectors_RF @ vectors_RF[chosen[-1]])
            nearest_R[chosen[-1]] = np.inf
        return [conversations[index] for index in sorted(chosen)]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]


def _counts(text: str) -> np.ndarray:
    codes = [zlib.crc32(word.encode()) % FEATURES for word in re.findall(r"\w+", text.lower())]
    return np.bincount(codes, minlength=FEATURES).astype(np.float32)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Diversity]
