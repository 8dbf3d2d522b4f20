"""Instruction tuning with pretraining data mixed in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, hookimpl


class WithPretrainingData(InstructionStrategy):
    """All conversations in random order; a share of the tokens comes from the pretraining corpus.

    Paper: Iyer et al. 2022, arXiv:2212.12017 (OPT-IML mixes in 5 %); survey section 5.1.2
    """

    name = "with_pretraining_data"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        share: float = 0.05
        """Share of the tokens from pretraining data (0 to 1, both excluded)."""

        def __post_init__(self) -> None:
            if not 0 < self.share < 1:
                raise ConfigError(f"instruction_strategy.share={self.share} must lie in (0, 1)")

    config: Config

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def pretraining_share(self) -> float:
        return self.config.share


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WithPretrainingData]
