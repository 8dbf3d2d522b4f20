"""The suite of instruction strategies catches what it should."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from told import told

from harness import Conversation, InstructionStrategy
from harness.conformance import test_instruction_strategy as suite


class Base(InstructionStrategy):
    """Random order, and right."""

    name = "planted"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [conversations[index] for index in rng.permutation(len(conversations))]


class Lazy(Base):
    name = "lazy"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return []


class Ordered(Base):
    name = "ordered"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return list(conversations)


class Chance(Base):
    name = "chance"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return random.SystemRandom().sample(list(conversations), len(conversations))


class Invents(Base):
    name = "invents"

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [replace(conversation, id=f"new {conversation.id}") for conversation in conversations]


class Unanswered(Base):
    name = "unanswered"

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        return [replace(conversation, turns=conversation.turns[:1]) for conversation in conversations]


class OnlyPretraining(Base):
    name = "only_pretraining"

    def pretraining_share(self) -> float:
        return 1.0


class InPlace(Base):
    name = "in_place"

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        assert isinstance(conversations, list)
        rng.shuffle(conversations)
        return conversations

    def select(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        assert isinstance(conversations, list)
        return conversations


def test_a_right_strategy_passes() -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Lazy, suite.test_it_meets_something),
        (Invents, suite.test_learned_conversations_come_from_the_source),
        (Chance, suite.test_one_seed_gives_one_order),
        (Ordered, suite.test_another_seed_gives_another_order),
        (InPlace, suite.test_the_input_is_left_as_it_was),
        (OnlyPretraining, suite.test_the_share_of_pretraining_data_is_a_share),
        (Unanswered, suite.test_answers_stay_answers),
    ],
)
def test_a_planted_bug_is_caught(method: type[InstructionStrategy], test: object) -> None:
    with told():
        test(method)  # type: ignore[operator]
