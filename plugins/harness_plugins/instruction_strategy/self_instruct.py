"""Self-Instruct: a writer makes new instructions and answers from those at hand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import (
    ConfigError,
    Conversation,
    InstructionStrategy,
    Method,
    Problem,
    check_counts,
    hookimpl,
    rouge_l,
    words,
)
from harness_plugins.instruction_strategy._writer import (
    WriterConfig,
    cleaned,
    exchange,
    single,
    writer_of,
    writer_problems,
)

FORBIDDEN = {
    *("image", "images", "graph", "graphs", "picture", "pictures"),
    *("file", "files", "map", "draw", "plot"),
}
MAX_ROUGE, MIN_WORDS, MAX_WORDS = 0.7, 4, 150
SHOWN, SHOWN_WRITTEN = 8, 2
"""Instructions shown in a request, and how many of them are written ones."""


class SelfInstruct(InstructionStrategy):
    """Instructions bootstrapped from seeds: eight shown, the next written, kept where unlike all others.

    Paper: Wang et al. 2022, arXiv:2212.10560, sections 2.2 and 3
    Differs: one answer an instruction, output first for none: whether it is a classification is not asked
    """

    name = "self_instruct"
    writes = True

    @dataclass(frozen=True, kw_only=True)
    class Config(WriterConfig):
        number: int = 100
        """New instructions wanted."""
        max_requests: int = 1000
        """Most requests for instructions; a weak writer repeats itself."""
        keep_seeds: bool = True
        """Whether the seeds are learned too."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_counts(self, "instruction_strategy", "number", "max_requests")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: Any) -> Iterable[Problem]:
        yield from writer_problems(config, required=True)

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        seeds, writer, facts = single(conversations), writer_of(self.config, self.models), Counter[str]()
        if not seeds:
            raise ConfigError("instruction_strategy=self_instruct needs seeds of one question and one answer")
        pool = [words(seed.turns[0].text) for seed in seeds]
        new: list[Conversation] = []
        left = self.config.max_requests
        while len(new) < self.config.number and left:
            size = min(left, 16, self.config.number - len(new))
            left -= size
            asked = [self._request(seeds, new, rng) for _ in range(size)]
            proposals = [cleaned(line) for line in writer.next_lines(asked, seed=int(rng.integers(2**62)))]
            kept = []
            for proposal in proposals:
                reason = unfit(proposal, pool)
                facts[f"left out: {reason}" if reason else "kept"] += 1
                if not reason:
                    pool.append(words(proposal))
                    kept.append(proposal)
            answers = writer.write(kept, seed=int(rng.integers(2**62))) if kept else []
            for question, answer in zip(kept, answers, strict=True):
                if not answer.strip() or words(answer) == words(question):
                    facts["left out: no answer"] += 1
                    continue
                origin = seeds[int(rng.integers(len(seeds)))]
                new.append(exchange(origin, f"written{len(new)}", question, answer))
        self.facts = {"written": {**facts, **writer.facts()}}
        return [*(conversations if self.config.keep_seeds else ()), *new]

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def _request(
        self, seeds: Sequence[Conversation], new: Sequence[Conversation], rng: np.random.Generator
    ) -> str:
        """A list of tasks that lacks its last one, instructions alone (the paper's table 5)."""
        written = [new[i] for i in rng.permutation(len(new))[:SHOWN_WRITTEN]]
        given = [seeds[i] for i in rng.permutation(len(seeds))[: SHOWN - len(written)]]
        told = [instruction(c.turns[0].text) for c in (*given, *written)]
        lines = [f"{place}. {text}" for place, text in enumerate(told, start=1)]
        return "\n".join(["Come up with a series of tasks:", *lines, f"{len(told) + 1}."])


def instruction(question: str) -> str:
    """A question without the input that follows its first paragraph, in one line, as the authors show it."""
    return " ".join(question.partition("\n\n")[0].split()).rstrip(":")


def unfit(proposal: str, pool: Sequence[Sequence[str]]) -> str:
    """Why a proposed instruction is left out; empty where it is kept."""
    said = words(proposal)
    if not MIN_WORDS <= len(said) <= MAX_WORDS:
        return "length"
    if FORBIDDEN & set(said):
        return "not for a language model"
    if not proposal[0].isascii() or not proposal[0].isalnum():
        return "begins with no letter"
    return "alike" if any(_alike(said, other) for other in pool) else ""


def _alike(first: Sequence[str], second: Sequence[str]) -> bool:
    shared = sum((Counter(first) & Counter(second)).values())
    if 2 * shared / max(1, len(first) + len(second)) < MAX_ROUGE:
        return False
    return rouge_l(first, second) >= MAX_ROUGE


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SelfInstruct]
