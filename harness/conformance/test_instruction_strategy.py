"""What every instruction strategy must do. One for which a model writes is tried by its own tests."""

import numpy as np

from harness.axes.instruction import Conversation, Role, Turn
from harness.axes.instruction_strategy import InstructionStrategy

AXIS = "instruction_strategy"


def conversations() -> list[Conversation]:
    """Sixty conversations of three sources, of growing length."""
    return [
        Conversation(
            id=f"{source}/{number}",
            turns=(
                Turn(role=Role.user, text=f"Please {source} number {number} and {'more ' * number}"),
                Turn(role=Role.assistant, text=f"the {source} answer {number} " * (1 + number)),
            ),
            source=source,
        )
        for source, size in (("flan", 40), ("chat", 15), ("self", 5))
        for number in range(size)
    ]


def schedule(method: type[InstructionStrategy], seed: int = 0) -> list[Conversation]:
    """One epoch under the method's trial options."""
    instance = method(method.trial(["flan", "chat", "self"]))
    rng = np.random.default_rng(seed)
    return instance.schedule(instance.select(conversations(), rng), rng)


def test_it_meets_something(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    assert schedule(method), "no conversation is met"


def test_learned_conversations_come_from_the_source(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    known = {conversation.id for conversation in conversations()}
    assert all(conversation.id.split("#")[0] in known for conversation in schedule(method)), (
        "a rewritten conversation keeps its id before a #"
    )


def test_one_seed_gives_one_order(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    assert schedule(method, 5) == schedule(method, 5), (
        "one seed gives two orders: draw from the generator given"
    )


def test_another_seed_gives_another_order(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    assert schedule(method, 1) != schedule(method, 2), (
        "another seed gives the same order: the generator given is not read"
    )


def test_the_input_is_left_as_it_was(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    given = conversations()
    instance = method(method.trial(["flan", "chat", "self"]))
    instance.schedule(instance.select(given, np.random.default_rng(0)), np.random.default_rng(0))
    assert given == conversations(), "the conversations given were changed in place"


def test_the_share_of_pretraining_data_is_a_share(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    assert 0 <= method(method.trial(["flan", "chat", "self"])).pretraining_share() < 1, (
        "pretraining_share must be at least 0 and below 1"
    )


def test_answers_stay_answers(method: type[InstructionStrategy]) -> None:
    if method.writes:
        return
    for conversation in schedule(method):
        assert conversation.turns[-1].role is Role.assistant, (
            "a conversation does not end with the assistant's turn"
        )
        assert conversation.turns[-1].text.strip(), "an answer is empty"
