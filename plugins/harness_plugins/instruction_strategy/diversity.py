"""Diversity: the conversations that differ most from each other."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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

FEATURES = 512
BLOCK = 2048
"""Conversations among which one choice is made; the whole set up to this many."""


class Diversity(InstructionStrategy):
    """Greedy k-center choice over hashed, inverse-frequency weighted words of the prompts.

    Large sets are parted at random into blocks with a choice in each, so that time grows with the number of
    conversations, not with its square. With a writer and `topics`, each chosen conversation is then written
    anew about a topic, the topics in turn.
    Paper: survey section 5.1.4 (topic diversity); Sener and Savarese 2018, arXiv:1708.00489 (k-center);
    Malkomes et al. 2015 (k-center of parts)
    Differs: the survey's 293 topics are not published; `topics` are the user's
    """

    name = "diversity"

    @dataclass(frozen=True, kw_only=True)
    class Config(WriterConfig):
        share: float = 0.5
        """Share of the conversations to keep (0 to 1]."""
        topics: list[str] = field(default_factory=list)
        """Topics that a writer rewrites the conversations about; empty leaves them as they are."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.share <= 1:
                raise ConfigError(f"instruction_strategy.share={self.share} must lie in (0, 1]")
            if self.writes != bool(self.topics):
                raise ConfigError("instruction_strategy: a writer and topics belong together in diversity")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: Any) -> Iterable[Problem]:
        yield from writer_problems(config, required=bool(config.topics))

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        chosen = self._chosen(conversations, rng)
        return self._rewritten(chosen, rng) if self.config.topics else chosen

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]

    def _chosen(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        vectors_RF = np.stack([_counts(conversation.turns[0].text) for conversation in conversations])
        vectors_RF *= np.log(len(conversations) / np.maximum(1, (vectors_RF > 0).sum(0))) + 1
        vectors_RF /= np.linalg.norm(vectors_RF, axis=1, keepdims=True).clip(1e-12)
        blocks = -(-len(conversations) // BLOCK)
        order = rng.permutation(len(conversations)) if blocks > 1 else np.arange(len(conversations))
        chosen: list[int] = []
        for number, part in enumerate(np.array_split(order, blocks), start=1):
            wanted = max(1, round(self.config.share * len(conversations) * number / blocks)) - len(chosen)
            found = farthest_first(vectors_RF[part], wanted, first=int(rng.integers(len(part))))
            chosen += part[found].tolist()
        return [conversations[index] for index in sorted(chosen)]

    def _rewritten(self, chosen: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        """The conversations written anew, each about the next topic; those of several turns stay."""
        writer, facts = writer_of(self.config, self.models), Counter[str]()
        topics, texts = self.config.topics, single(chosen)
        asked = [
            "Write an instruction for an AI assistant like the one below, but about the topic "
            f"{topics[place % len(topics)]}. Reply with the instruction alone.\n\n"
            f"Instruction: {c.turns[0].text}"
            for place, c in enumerate(texts)
        ]
        questions = [cleaned(text) for text in writer.write(asked, seed=int(rng.integers(2**62)))]
        answers = writer.write(questions, seed=int(rng.integers(2**62)))
        new: dict[str, Conversation] = {}
        for place, (c, question, answer) in enumerate(zip(texts, questions, answers, strict=True)):
            fits = bool(question and answer)
            facts["rewritten" if fits else "left out: nothing was written"] += 1
            if fits:
                new[c.id] = exchange(c, f"topic{place % len(topics)}", question, answer)
        self.facts = {"written": {**facts, **writer.facts()}}
        several = [c for c in chosen if c.id not in {text.id for text in texts}]
        return [*new.values(), *several]


def farthest_first(vectors_RF: np.ndarray, number: int, *, first: int) -> list[int]:
    """Rows chosen one by one, each the least alike to all chosen before.

    Shapes: R unit vectors -> `number` indices
    """
    chosen = [first][:number]
    nearest_R = vectors_RF @ vectors_RF[first]
    nearest_R[first] = np.inf
    while len(chosen) < number:
        chosen.append(int(nearest_R.argmin()))
        nearest_R = np.maximum(nearest_R, vectors_RF @ vectors_RF[chosen[-1]])
        nearest_R[chosen[-1]] = np.inf
    return chosen


def _counts(text: str) -> np.ndarray:
    codes = [zlib.crc32(word.encode()) % FEATURES for word in re.findall(r"\w+", text.lower())]
    return np.bincount(codes, minlength=FEATURES).astype(np.float32)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Diversity]
