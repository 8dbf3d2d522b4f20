"""Rule feedback: code decides which of two answers follows the instruction."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness import ConfigError, Conversation, Feedback, Method, Preference, Role, check, hookimpl

ATTEMPTS = 50


class Rule(Feedback):
    """The right answer against a near miss that breaks the prompt's checks.

    Near misses are the answer with words dropped, repeated, swapped or replaced, or another prompt's answer.
    Conversations without checks, or whose own answer breaks them, yield nothing.
    Paper: Glaese et al. 2022, arXiv:2209.14375 (rules); survey section 5.2.2
    """

    name = "rule"

    @dataclass(frozen=True, kw_only=True)
    class Config(Feedback.Config):
        pairs_per_prompt: int = 1
        """Rejected answers for each prompt, all different."""

        def __post_init__(self) -> None:
            if self.pairs_per_prompt < 1:
                raise ConfigError(f"feedback.pairs_per_prompt={self.pairs_per_prompt} must be at least 1")

    config: Config

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        others = [turn.text for c in conversations for turn in c.turns if turn.role is Role.assistant]
        for conversation in conversations:
            if not conversation.checks or len(conversation.turns) != 2:
                continue
            prompt, chosen = (turn.text for turn in conversation.turns)
            if not check(chosen, conversation.checks):
                continue
            rng = random.Random(f"{seed}/{conversation.id}")
            found: list[str] = []
            for _ in range(ATTEMPTS):
                rejected = rng.choice(NEAR_MISSES)(rng, chosen, rng.choice(others))
                if rejected and rejected not in found and not check(rejected, conversation.checks):
                    found.append(rejected)
                if len(found) == self.config.pairs_per_prompt:
                    break
            for index, rejected in enumerate(found):
                yield Preference(
                    id=f"{conversation.id}/{index}",
                    prompt=prompt,
                    chosen=chosen,
                    rejected=rejected,
                    checks=conversation.checks,
                )


def _drop(rng: random.Random, answer: str, other: str) -> str:
    words = answer.split(" ")
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _repeat(rng: random.Random, answer: str, other: str) -> str:
    words = answer.split(" ")
    words.insert(0, rng.choice(words))
    return " ".join(words)


def _shuffle(rng: random.Random, answer: str, other: str) -> str:
    words = answer.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def _replace(rng: random.Random, answer: str, other: str) -> str:
    words = answer.split(" ")
    words[rng.randrange(len(words))] = rng.choice(other.split(" "))
    return " ".join(words)


def _other(rng: random.Random, answer: str, other: str) -> str:
    return other


NEAR_MISSES: tuple[Callable[[random.Random, str, str], str], ...] = (
    _drop,
    _repeat,
    _shuffle,
    _replace,
    _other,
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Rule]
