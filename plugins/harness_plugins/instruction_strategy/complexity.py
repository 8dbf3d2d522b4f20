"""Complexity: instructions made harder by added demands."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, Role, Turn, hookimpl


class Complexity(InstructionStrategy):
    """Evol-Instruct's deepening by rule: some conversations get one more demand, and an answer that
    meets it.

    Paper: Xu et al. 2023, arXiv:2304.12244 (Evol-Instruct)
    Differs: three rules (capitals, quotes, a second task) instead of a large language model that rewrites
    """

    name = "complexity"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        share: float = 0.5
        """Share of the conversations that are made harder (0 to 1]."""

        def __post_init__(self) -> None:
            if not 0 < self.share <= 1:
                raise ConfigError(f"instruction_strategy.share={self.share} must lie in (0, 1]")

    config: Config

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        number = round(self.config.share * len(conversations))
        harder = set(rng.permutation(len(conversations))[:number].tolist())
        return [
            self._evolved(c, conversations[int(rng.integers(len(conversations)))], int(rng.integers(3)))
            if index in harder
            else c
            for index, c in enumerate(conversations)
        ]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def _evolved(self, conversation: Conversation, other: Conversation, rule: int) -> Conversation:
        *before, asked, answered = conversation.turns
        question, answer = asked.text, answered.text
        if rule == 0:
            question, answer = f"{question} - in capitals", answer.upper()
        elif rule == 1:
            question, answer = f"{question} - in quotes", f'" {answer} "'
        else:
            question = f"{question} - then: {other.turns[-2].text}"
            answer = f"{answer} ; {other.turns[-1].text}"
        turns = Turn(role=Role.user, text=question), Turn(role=Role.assistant, text=answer)
        return replace(
            conversation,
            id=f"{conversation.id}#{('capitals', 'quotes', 'chained')[rule]}",
            turns=(*before, *turns),
            checks={"exact": answer} if conversation.checks else {},
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Complexity]
