"""Shared n-grams: found exactly where a comparison of all word tuples finds them."""

import random

import pytest

from harness.data.overlap import Overlap, words


def tuples(text: str, size: int) -> set[tuple[str, ...]]:
    own = words(text)
    return {tuple(own[i : i + size]) for i in range(len(own) - size + 1)}


def test_it_finds_what_comparing_all_tuples_of_words_finds() -> None:
    rng = random.Random(0)
    vocabulary = [f"w{n}" for n in range(4)]

    def text(size: int) -> str:
        return " ".join(rng.choice(vocabulary) for _ in range(size))

    items, documents = [text(40) for _ in range(30)], [text(60) for _ in range(200)]
    overlap = Overlap(items, ngram=9)
    known = set[tuple[str, ...]]().union(*(tuples(item, 9) for item in items))
    shares = []
    for document in documents:
        own = words(document)
        count = sum(tuple(own[i : i + 9]) in known for i in range(len(own) - 8))
        assert len(overlap.of(document)) == count
        assert overlap.share(document) == pytest.approx(count / (len(own) - 8))
        shares.append(count)
    assert 0 < sum(count > 0 for count in shares) < len(shares)


def test_case_and_punctuation_do_not_hide_a_copy() -> None:
    item = "What is the name of the ship that sailed around the whole world in 1522"
    overlap = Overlap([item], ngram=13)
    assert (
        len(overlap.of("> WHAT is the name, of the *ship* that sailed\naround the whole world: in 1522!"))
        == 3
    )
    assert not len(overlap.of("What is the name of the boat that sailed around the whole world in 1522"))


def test_an_item_of_eight_words_is_looked_for_as_a_whole_and_one_of_seven_is_not() -> None:
    eight, seven = "one two three four five six seven eight", "one two three four five six seven"
    overlap = Overlap([eight], ngram=13)
    assert len(overlap.of(f"zero {eight} nine")) == 1
    assert not len(overlap.of(f"zero {seven} nine"))
    assert not len(Overlap([seven], ngram=13).of(seven))


def test_characters_of_a_script_without_spaces_are_words() -> None:
    item = "\u5317\u4eac\u662f\u4e2d\u534e\u4eba\u6c11\u5171\u548c\u56fd\u7684\u9996\u90fd"
    overlap = Overlap([item], ngram=13)
    assert len(overlap.of(f"\u6211\u77e5\u9053{item}\u3002"))
