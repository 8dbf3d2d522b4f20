"""Instruction back-translation: a writer says what instruction a text answers, and rates the pair."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, Problem, hookimpl
from harness_plugins.instruction_strategy._writer import (
    WriterConfig,
    cleaned,
    exchange,
    single,
    writer_of,
    writer_problems,
)

RATING = re.compile(r"[1-5]")


class BackTranslation(InstructionStrategy):
    """Answers keep, instructions are written for them; pairs are kept where the writer rates them highly.

    Paper: Li et al. 2023, arXiv:2308.06259 (self-augmentation and self-curation)
    Differs: the texts are the answers of the instruction source, not of a web corpus
    """

    name = "back_translation"
    writes = True

    @dataclass(frozen=True, kw_only=True)
    class Config(WriterConfig):
        min_rating: int = 4
        """Least rating of a pair that is kept, 1 to 5; 1 keeps all that have one."""
        share: float = 1.0
        """Share of the conversations that are rewritten (0 to 1]; the others stay as they are."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.min_rating <= 5 or not 0 < self.share <= 1:
                raise ConfigError("instruction_strategy.min_rating must be 1 to 5, share lie in (0, 1]")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: Any) -> Iterable[Problem]:
        yield from writer_problems(config, required=True)

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        writer, facts = writer_of(self.config, self.models), Counter[str]()
        texts = single(conversations)
        number = round(self.config.share * len(texts))
        chosen = [texts[i] for i in sorted(rng.permutation(len(texts))[:number].tolist())]
        answers = [c.turns[1].text for c in chosen]
        written = writer.write([_asking(a) for a in answers], seed=int(rng.integers(2**62)))
        questions = [cleaned(text.split("\n")[0]) for text in written]
        pairs = list(zip(questions, answers, strict=True))
        ratings = writer.write([_rating(q, a) for q, a in pairs], seed=int(rng.integers(2**62)))
        kept = []
        for origin, (question, answer), said in zip(chosen, pairs, ratings, strict=True):
            found = RATING.search(said)
            if found is None or not question:
                facts["left out: no rating" if question else "left out: no instruction"] += 1
            elif int(found[0]) < self.config.min_rating:
                facts["left out: rated low"] += 1
            else:
                facts["kept"] += 1
                kept.append(exchange(origin, "back_translated", question, answer))
        self.facts = {"written": {**facts, **writer.facts()}}
        rewritten = {c.id for c in chosen}
        return [*(c for c in conversations if c.id not in rewritten), *kept]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]


def _asking(answer: str) -> str:
    return f"Which instruction does this text answer? Reply with the instruction alone.\n\nText: {answer}"


def _rating(question: str, answer: str) -> str:
    return (
        "How well does an AI assistant follow the instruction by this answer? Reply with one number from 1 "
        f"(not at all) to 5 (perfectly).\n\nInstruction: {question}\n\nAnswer: {answer}"
    )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BackTranslation]
