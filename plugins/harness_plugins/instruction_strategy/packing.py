"""Packing: several conversations share one sequence."""

from collections.abc import Sequence

import numpy as np

from harness import Conversation, InstructionStrategy, Method, hookimpl


class Packing(InstructionStrategy):
    """All conversations in random order, packed into full sequences; attention never crosses them.

    Paper: Krell et al. 2021, arXiv:2107.02027; survey section 5.1.2
    """

    name = "packing"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def packs(self) -> bool:
        return True


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Packing]
