"""Complexity: instructions made harder by added demands."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, Problem, Role, Turn, hookimpl
from harness_plugins.instruction_strategy._evolution import OPERATORS, eliminated, evolving_prompt
from harness_plugins.instruction_strategy._writer import (
    WriterConfig,
    cleaned,
    exchange,
    single,
    writer_of,
    writer_problems,
)


class Complexity(InstructionStrategy):
    """Evol-Instruct: some conversations get a harder instruction, and an answer to it.

    With a writer (a model or an endpoint) its five ways of deepening and the one of broadening are drawn at
    random, evolutions that fail the paper's elimination keep the instruction as it was, and `rounds` repeats
    it. Without one, three rules add a demand that code can check.
    Paper: Xu et al. 2023, arXiv:2304.12244 (Evol-Instruct), sections 3.2 and 3.3
    Differs: without a writer, rules (capitals, quotes, a second task) in place of a language model; with one,
        that nothing was gained is told by equal words, not by asking
    """

    name = "complexity"

    @dataclass(frozen=True, kw_only=True)
    class Config(WriterConfig):
        share: float = 0.5
        """Share of the conversations that are made harder (0 to 1]."""
        rounds: int = 1
        """Times that a writer evolves an instruction."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.share <= 1 or self.rounds < 1:
                raise ConfigError(
                    f"instruction_strategy.share={self.share} must lie in (0, 1], rounds be at least 1"
                )

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: Any) -> Iterable[Problem]:
        yield from writer_problems(config, required=False)

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        number = round(self.config.share * len(conversations))
        harder = set(rng.permutation(len(conversations))[:number].tolist())
        if self.config.writes:
            return self._written(conversations, harder, rng)
        return [
            self._evolved(c, conversations[int(rng.integers(len(conversations)))], int(rng.integers(3)))
            if index in harder
            else c
            for index, c in enumerate(conversations)
        ]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def _written(
        self, conversations: Sequence[Conversation], harder: set[int], rng: np.random.Generator
    ) -> list[Conversation]:
        """The conversations, those chosen evolved by the writer where that succeeds."""
        writer, facts = writer_of(self.config, self.models), Counter[str]()
        chosen = [c for index, c in enumerate(conversations) if index in harder]
        now = {c.id: c for c in single(chosen)}
        facts["several turns, left as they are"] = len(chosen) - len(now)
        for _ in range(self.config.rounds):
            origins = list(now)
            ways = [str(way) for way in rng.choice(list(OPERATORS), len(origins))]
            before = [now[origin].turns[0].text for origin in origins]
            asked = [evolving_prompt(way, text) for way, text in zip(ways, before, strict=True)]
            texts = writer.write(asked, seed=int(rng.integers(2**62)))
            evolved = [cleaned(text) for text in texts]
            answers = writer.write(evolved, seed=int(rng.integers(2**62)))
            for origin, way, old, new, answer in zip(origins, ways, before, evolved, answers, strict=True):
                reason = eliminated(old, new, answer)
                facts[f"eliminated: {reason}" if reason else "evolved"] += 1
                if not reason:
                    now[origin] = exchange(replace(now[origin], id=origin), way, new, answer)
        self.facts = {"written": {**facts, **writer.facts()}}
        return [now.get(c.id, c) for c in conversations]

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
