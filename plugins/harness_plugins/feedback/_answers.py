"""Right answers and near misses, which every source of feedback compares."""

import random
from collections.abc import Callable, Iterator, Sequence

from harness import Conversation, check

ATTEMPTS = 50


def exercises(conversations: Sequence[Conversation]) -> Iterator[Conversation]:
    """Single-turn conversations with checks that their own answer meets."""
    for conversation in conversations:
        single = bool(conversation.checks) and len(conversation.turns) == 2
        if single and check(conversation.turns[1].text, conversation.checks):
            yield conversation


def near_misses(
    rng: random.Random, conversation: Conversation, others: Sequence[Conversation], number: int
) -> list[str]:
    """Up to `number` different answers that break a check: the right one with words dropped, repeated,
    swapped or replaced, or the answer of another conversation.
    """
    right, found = conversation.turns[1].text, list[str]()
    for _ in range(ATTEMPTS):
        other = others[rng.randrange(len(others))].turns[-1].text
        wrong = rng.choice(CHANGES)(rng, right, other)
        if wrong.strip() and wrong not in found and not check(wrong, conversation.checks):
            found.append(wrong)
        if len(found) == number:
            break
    return found


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


CHANGES: tuple[Callable[[random.Random, str, str], str], ...] = (_drop, _repeat, _shuffle, _replace, _other)
