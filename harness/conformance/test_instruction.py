"""What every source of instructions must do."""

from collections import Counter
from itertools import islice
from pathlib import Path

from harness.axes.corpus import Document, Split
from harness.axes.instruction import Conversation, Instruction, Role
from harness.data.checks import violated

AXIS = "instruction"
LIMIT = 500
DOCUMENTS = [
    Document(
        id=f"docs/{number}",
        text=f"os.path\nCommon pathname manipulations, part {number}.\n\nThe module holds functions.\n",
        domain="docs",
        split=Split.train if number % 5 else Split.test,
    )
    for number in range(40)
]


def conversations(method: type[Instruction], directory: Path, seed: int = 0) -> list[Conversation]:
    """The first conversations under the method's trial options."""
    instance = method(method.trial(directory))
    return list(islice(instance.conversations(DOCUMENTS, seed), LIMIT))


def test_it_yields_conversations_that_end_with_an_answer(method: type[Instruction], tmp_path: Path) -> None:
    found = conversations(method, tmp_path)
    assert found, "no conversations"
    for conversation in found:
        assert conversation.turns[-1].role is Role.assistant, f"{conversation.id} ends with no answer"
        said = [turn.text.strip() or turn.tool_calls for turn in conversation.turns]
        assert all(said), f"{conversation.id} has an empty turn"
        assert conversation.source, f"{conversation.id} has no source"


def test_user_and_assistant_take_turns(method: type[Instruction], tmp_path: Path) -> None:
    for conversation in conversations(method, tmp_path):
        spoken = [turn for turn in conversation.turns if not turn.tool_calls]
        roles = [turn.role for turn in spoken if turn.role in (Role.user, Role.assistant)]
        expected = [Role.user if i % 2 == 0 else Role.assistant for i in range(len(roles))]
        assert roles == expected, f"{conversation.id}: {roles}"


def test_ids_are_unique(method: type[Instruction], tmp_path: Path) -> None:
    ids = Counter(conversation.id for conversation in conversations(method, tmp_path))
    assert not [name for name, number in ids.items() if number > 1], "two conversations have one id"


def test_one_seed_gives_one_result(method: type[Instruction], tmp_path: Path) -> None:
    assert conversations(method, tmp_path, 3) == conversations(method, tmp_path, 3), (
        "one seed gives two results: draw from the seed alone"
    )


def test_answers_meet_their_own_checks(method: type[Instruction], tmp_path: Path) -> None:
    for conversation in conversations(method, tmp_path):
        broken = violated(conversation.turns[-1].text, conversation.checks)
        assert not broken, f"{conversation.id} breaks {broken}"


def test_no_prompt_is_both_trained_on_and_tested(method: type[Instruction], tmp_path: Path) -> None:
    instance = method(method.trial(tmp_path))
    prompts: dict[Split, set[tuple[str, ...]]] = {split: set() for split in Split}
    for conversation in instance.conversations(DOCUMENTS, 0):
        prompts[conversation.split].add(tuple(turn.text for turn in conversation.turns[:-1]))
    assert not prompts[Split.train] & prompts[Split.test], "a prompt is both trained on and tested"
    assert not prompts[Split.train] & prompts[Split.validation], (
        "a prompt is both trained on and validated on"
    )
