"""ROUGE-L against its definition and its reference implementation, MTLD against cases by hand."""

import random
from itertools import combinations

import pytest

from harness.data.similarity import mtld, rouge_l


def longest(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Length of the longest common subsequence, by trying all of them."""
    return max(
        size
        for size in range(len(first) + 1)
        for chosen in combinations(first, size)
        if is_subsequence(chosen, second)
    )


def is_subsequence(chosen: tuple[str, ...], text: tuple[str, ...]) -> bool:
    rest = iter(text)
    return all(word in rest for word in chosen)


def test_rouge_l_is_its_definition() -> None:
    rng = random.Random(0)
    for _ in range(40):
        first, second = (tuple(rng.choices("abcde", k=rng.randrange(1, 9))) for _ in range(2))
        common = longest(first, second)
        precision, recall = common / len(first), common / len(second)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l(first, second) == pytest.approx(expected)


@pytest.mark.slow
def test_rouge_l_is_that_of_the_reference() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    rng = random.Random(0)
    for _ in range(50):
        first, second = (rng.choices("abcdefg", k=rng.randrange(1, 12)) for _ in range(2))
        expected = scorer.score(" ".join(first), " ".join(second))["rougeL"].fmeasure
        assert rouge_l(first, second) == pytest.approx(expected)


def test_mtld_of_cases_by_hand() -> None:
    # Type-token ratios of "a a": 1, 0.5 <= 0.72: a factor every two words.
    assert mtld(["a"] * 10) == pytest.approx(2.0)
    assert mtld([str(n) for n in range(50)]) == 50.0
    # a b a: 1, 1, 2/3 <= 0.72: one factor of three words, both ways round.
    assert mtld(["a", "b", "a"] * 4) == pytest.approx(3.0)
    assert mtld([]) == 0.0
