"""The suite of feedback catches what it should."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from told import told

from harness import Conversation, Feedback, Preference
from harness.conformance import test_feedback as suite


class Base(Feedback):
    """The answer against nothing but a full stop, and right."""

    name = "planted"

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for c in conversations:
            question, answer = c.turns
            yield Preference(id=c.id, prompt=question.text, chosen=answer.text, rejected=".", checks=c.checks)


def changed(name: str, **changes: object) -> type[Base]:
    """Base with fields of every preference replaced."""

    def preferences(self: Base, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for preference in Base.preferences(self, conversations, seed):
            yield replace(preference, **changes)  # type: ignore[arg-type]

    return type(name, (Base,), {"name": name, "preferences": preferences})


class Silent(Base):
    name = "silent"

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        yield from ()


class Reversed(Base):
    name = "reversed"

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for preference in super().preferences(conversations, seed):
            yield replace(preference, chosen=preference.rejected, rejected=preference.chosen)


class Chance(Base):
    name = "chance"

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for preference in super().preferences(conversations, seed):
            yield replace(preference, rejected=str(random.SystemRandom().random()))


def test_a_right_source_passes() -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Silent, suite.test_it_finds_preferences),
        (changed("equal", chosen="a", rejected="a "), suite.test_the_two_answers_differ),
        (changed("foreign", prompt="Who are you?"), suite.test_prompts_are_those_of_the_conversations),
        (changed("twins", id="one"), suite.test_ids_are_unique),
        (Chance, suite.test_one_seed_gives_one_result),
        (Reversed, suite.test_the_better_answer_meets_more_checks),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_planted_bug_is_caught(method: type[Feedback], test: object) -> None:
    with told():
        test(method)  # type: ignore[operator]
