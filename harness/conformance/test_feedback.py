"""What every source of feedback must do."""

from collections import Counter

from harness.axes.feedback import Feedback
from harness.axes.instruction import Conversation, Role, Turn
from harness.axes.reward import Preference
from harness.data.skills import skill_items

AXIS = "feedback"


def conversations() -> list[Conversation]:
    """A hundred exercises with checks."""
    return [
        Conversation(
            id=item.id,
            turns=(
                Turn(role=Role.user, text=item.prompt),
                Turn(role=Role.assistant, text=item.answer),
            ),
            source=item.skill,
            checks=item.checks,
        )
        for item in skill_items("instructions", "train", 0, 100)
    ]


def preferences(method: type[Feedback], seed: int = 0) -> list[Preference]:
    """All preferences under the method's trial options."""
    return list(method(method.trial()).preferences(conversations(), seed))


def test_it_finds_preferences(method: type[Feedback]) -> None:
    assert preferences(method), "no preference came of conversations that have some"


def test_the_two_answers_differ(method: type[Feedback]) -> None:
    for preference in preferences(method):
        assert preference.chosen.strip() != preference.rejected.strip(), preference.id
        assert preference.chosen.strip() or preference.rejected.strip(), preference.id


def test_prompts_are_those_of_the_conversations(method: type[Feedback]) -> None:
    if not method.reads_conversations:
        return
    known = {conversation.turns[0].text for conversation in conversations()}
    assert {preference.prompt for preference in preferences(method)} <= known, (
        "a prompt is none of the conversations'"
    )


def test_ids_are_unique(method: type[Feedback]) -> None:
    ids = Counter(preference.id for preference in preferences(method))
    assert not [name for name, number in ids.items() if number > 1], "two preferences have one id"


def test_one_seed_gives_one_result(method: type[Feedback]) -> None:
    assert preferences(method, 4) == preferences(method, 4), (
        "one seed gives two results: draw from the seed alone"
    )


def test_the_better_answer_meets_more_checks(method: type[Feedback]) -> None:
    from harness.data.checks import share_met

    if not method.reads_conversations:
        return
    found = preferences(method)
    better = sum(share_met(p.chosen, p.checks) > share_met(p.rejected, p.checks) for p in found)
    assert better > 0.9 * len(found), f"only {better} of {len(found)} prefer the answer that follows"
