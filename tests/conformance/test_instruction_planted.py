"""The suite of instruction sources catches what it should."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from told import told

from harness import Conversation, Document, Instruction, Role, Split, Turn
from harness.conformance import test_instruction as suite


class Base(Instruction):
    """Sums, and right."""

    name = "planted"

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        for number in range(30):
            yield Conversation(
                id=f"sum/{number}",
                turns=(
                    Turn(role=Role.user, text=f"{number} + 1"),
                    Turn(role=Role.assistant, text=str(number + 1)),
                ),
                source="sum",
                split=Split.test if number % 5 == 0 else Split.train,
                checks={"exact": str(number + 1)},
            )


def changed(name: str, **changes: object) -> type[Base]:
    """Base with fields of every conversation replaced."""

    def conversations(self: Base, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        for conversation in Base.conversations(self, documents, seed):
            yield replace(conversation, **changes)  # type: ignore[arg-type]

    return type(name, (Base,), {"name": name, "conversations": conversations})


QUESTION = Turn(role=Role.user, text="1 + 1")
ANSWER = Turn(role=Role.assistant, text="2")


UNANSWERED = changed("unanswered", turns=(QUESTION,))
LEAKY = changed("leaky", turns=(QUESTION, ANSWER), checks={})


class Chance(Base):
    name = "chance"

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        found = list(super().conversations(documents, seed))
        yield from random.SystemRandom().sample(found, len(found))


def test_a_right_source_passes(tmp_path: Path) -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base, tmp_path)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (
            changed("unanswered", turns=(QUESTION,)),
            suite.test_it_yields_conversations_that_end_with_an_answer,
        ),
        (changed("doubled", turns=(QUESTION, QUESTION, ANSWER)), suite.test_user_and_assistant_take_turns),
        (changed("twins", id="one"), suite.test_ids_are_unique),
        (Chance, suite.test_one_seed_gives_one_result),
        (changed("wrong", checks={"num_words": 7}), suite.test_answers_meet_their_own_checks),
        (
            changed("leaky", turns=(QUESTION, ANSWER), checks={}),
            suite.test_no_prompt_is_both_trained_on_and_tested,
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_planted_bug_is_caught(method: type[Instruction], test: object, tmp_path: Path) -> None:
    with told():
        test(method, tmp_path)  # type: ignore[operator]
