"""Packing: several conversations share one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness import Conversation, InstructionStrategy, Method, hookimpl


class Fit(Enum):
    """Which sequence a conversation goes into."""

    next = "next"
    best = "best"


class Packing(InstructionStrategy):
    """All conversations in random order, packed into full sequences; attention never crosses them.

    Paper: Krell et al. 2021, arXiv:2107.02027; survey section 5.1.2; Ding et al. 2024,
        arXiv:2404.10830 (best fit)
    """

    name = "packing"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        fit: Fit = Fit.next
        """next | best: a sequence ends where the next conversation has no room, or each goes where it leaves
        least room."""

    config: Config

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def best_fit(self) -> bool:
        return self.config.fit is Fit.best

    def packs(self) -> bool:
        return True


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Packing]
