"""Skills and checks: exercises are right, distinct, and apart from their tests."""

import pytest

from harness.axes.corpus import Split
from harness.data.checks import CHECKS, check, share_met, violated
from harness.data.skills import FAMILIES, GROUPS, skill_items, split_of
from harness.errors import DataError, UnknownNameError


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_right_and_the_other_choices_wrong(name: str) -> None:
    for item in skill_items(name, "train", 0, 40):
        assert check(item.answer, item.checks), item
        assert len(item.choices) == len(set(item.choices)) == 4, item
        assert [check(c, item.checks) for c in item.choices].count(True) == 1, item
        assert item.choices[item.label] == item.answer


@pytest.mark.parametrize("name", FAMILIES)
def test_no_item_is_in_two_splits_whatever_the_seed(name: str) -> None:
    prompts = {
        split: {item.prompt for seed in (0, 1) for item in skill_items(name, split, seed, 50)}
        for split in Split
    }
    assert not prompts[Split.train] & prompts[Split.test]
    assert not prompts[Split.train] & prompts[Split.validation]
    assert not prompts[Split.validation] & prompts[Split.test]
    assert all(split_of(prompt) is split for split, found in prompts.items() for prompt in found)


def test_items_are_distinct_and_reproducible() -> None:
    first, again = (list(skill_items("recall", "test", 3, 80)) for _ in range(2))
    assert first == again
    assert len({item.prompt for item in first}) == 80


def test_a_group_takes_its_families_in_turn_and_goes_on_without_the_exhausted() -> None:
    skills = [item.skill for item in skill_items("instructions", "test", 0, 200)]
    assert skills[:4] == list(GROUPS["instructions"])
    assert len(skills) == 200


def test_the_right_choice_stands_in_any_place() -> None:
    labels = [item.label for item in skill_items("copy", "train", 0, 200)]
    assert min(labels.count(place) for place in range(4)) > 25


def test_an_unknown_skill_or_check_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'passkey'"):
        list(skill_items("paskey", "test", 0, 1))
    with pytest.raises(UnknownNameError, match="Did you mean 'num_words'"):
        check("x", {"num_word": 1})


@pytest.mark.parametrize(
    ("name", "parameter", "good", "bad"),
    [
        ("exact", "a b", " a b\n", "a  b"),
        ("one_of", ["yes", "no"], "no", "perhaps"),
        ("contains", ["cat", "dog"], "dog and cat", "cat"),
        ("excludes", "cat", "dog", "a cat"),
        ("starts_with", "[", "[x", "x["),
        ("ends_with", ".", "x.", ".x"),
        ("num_words", 2, "a b", "a"),
        ("min_words", 2, "a b c", "a"),
        ("max_words", 2, "a", "a b c"),
        ("num_lines", 2, "a\nb", "a"),
        ("words_from", ["a", "b"], "b a b", "a c"),
        ("distinct_words", True, "a b", "a a"),
        ("case", "upper", "AB 1", "Ab"),
    ],
)
def test_a_check_tells_good_from_bad(name: str, parameter: object, good: str, bad: str) -> None:
    assert violated(good, {name: parameter}) == []
    assert violated(bad, {name: parameter}) == [name]


def test_every_check_has_a_case() -> None:
    marks = test_a_check_tells_good_from_bad.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(CHECKS)


def test_the_share_of_checks_met() -> None:
    assert share_met("a", {"num_words": 1, "exact": "b"}) == 0.5
    with pytest.raises(DataError, match="no machine-checkable constraints"):
        share_met("a", {})
