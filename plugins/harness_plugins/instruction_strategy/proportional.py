"""Proportional strategy: each source is met as often as it is large, up to a cap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import Conversation, InstructionStrategy, Method, check_limits, hookimpl


class Proportional(InstructionStrategy):
    """All conversations in random order, at most `cap` of one source.

    Paper: Wei et al. 2021, arXiv:2109.01652, appendix (examples-proportional mixing, maximum 3000)
    """

    name = "proportional"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        cap: int | None = None
        """Conversations of one source in an epoch, a new random choice each time; null sets no limit."""

        def __post_init__(self) -> None:
            check_limits(self, "instruction_strategy", "cap")

    config: Config

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        met: dict[str, int] = {}
        chosen: list[Conversation] = []
        for index in rng.permutation(len(conversations)):
            conversation = conversations[index]
            met[conversation.source] = met.get(conversation.source, 0) + 1
            if met[conversation.source] <= (self.config.cap or len(conversations)):
                chosen.append(conversation)
        return chosen


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Proportional]
