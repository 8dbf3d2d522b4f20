"""The filters that datatrove runs: its own verdicts and texts, by its own defaults, on drawn pages."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from harness_plugins.filter._datatrove import in_pieces
from harness_plugins.filter.c4 import C4
from harness_plugins.filter.fineweb import FineWeb
from harness_plugins.filter.gopher_quality import GopherQuality
from harness_plugins.filter.gopher_repetition import GopherRepetition

from harness import Document, Filter, Split

pytest.importorskip("spacy")
filters = pytest.importorskip("datatrove.pipeline.filters")
Theirs = pytest.importorskip("datatrove.data").Document
PAIRS = [
    (C4, filters.C4QualityFilter),
    (FineWeb, filters.FineWebQualityFilter),
    (GopherQuality, filters.GopherQualityFilter),
    (GopherRepetition, filters.GopherRepetitionFilter),
]
TEXT = (
    "the be to of and that have with keeper river house water number answer morning 42 1999 # ... {x} it's "
    "incomprehensibilities a I javascript cookie"
)
WORDS = TEXT.split()


def document(text: str) -> Document:
    return Document(id="x", text=text, domain="d", split=Split.train)


def pages(number: int) -> Iterator[str]:
    """Lines of drawn words, some repeated, some bullets, headings or unfinished."""
    rng = random.Random(0)
    for _ in range(number):
        weights = [rng.random() ** 3 for _ in WORDS]
        lines = []
        for _ in range(rng.choice([2, 8, 20])):
            line = " ".join(rng.choices(WORDS, weights, k=rng.choice([2, 5, 12])))
            line = rng.choice(["", "", "- ", "\u2022 "]) + line + rng.choice([".", ".", ".", "", "...", "!"])
            lines += [line] * rng.choice([1, 1, 1, 1, 3])
        yield rng.choice(["\n", "\n\n"]).join(lines)


def check(ours: type[Filter], theirs: type, number: int) -> Counter[str]:
    """How often each reason was given; all as theirs."""
    mine, other = ours(), theirs()
    reasons: Counter[str] = Counter()
    for text in pages(number):
        given = Theirs(text=text, id="x")
        verdict = other.filter(given)
        found = mine.judge(Document(id="x", text=text, domain="d", split=Split.train))
        if verdict is True:
            assert isinstance(found, Document), (text, found)
            assert found.text == given.text
            reasons["kept"] += 1
        else:
            assert found == verdict[1].removeprefix("gopher_").replace("_", " ")
            reasons[verdict[1]] += 1
    return reasons


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_verdicts_are_those_of_datatrove(ours: type[Filter], theirs: type) -> None:
    reasons = check(ours, theirs, 300)
    assert reasons["kept"]
    assert len(reasons) > 2, "several rules were tried"


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_verdicts_are_those_of_datatrove_on_5000_pages(ours: type[Filter], theirs: type) -> None:
    assert check(ours, theirs, 5_000).total() == 5_000


def test_an_empty_page_is_dropped_and_not_divided_by() -> None:
    for ours, _ in PAIRS:
        assert ours().judge(Document(id="x", text=" \n ", domain="d", split=Split.train)) == "empty"


def test_options_reach_the_rules() -> None:
    text = "Home | About\nThe keeper went down to the river.\n" * 2
    page = Document(id="x", text=text, domain="d", split=Split.train)
    assert C4().judge(page) == "too few sentences"
    kept = C4(C4.Config(min_sentences=2)).judge(page)
    assert isinstance(kept, Document)
    assert kept.text == "The keeper went down to the river.\nThe keeper went down to the river."
    assert FineWeb().judge(page) == "char dup ratio"
    assert FineWeb(FineWeb.Config(max_repeated_share=1.0)).judge(page) is page
    assert GopherRepetition(GopherRepetition.Config(max_line_share=0.1)).judge(page) == "dup line frac"
    assert GopherQuality().judge(page) == "short doc"


@pytest.mark.parametrize(("run", "most"), [("=", 100), ("(", 100), ("_", 100), ("1:", 1000)])
def test_runs_that_spacy_takes_long_for_are_cut(run: str, most: int) -> None:
    text = f"see {run * 5_000} there"
    cut = in_pieces(text)
    assert max(map(len, cut.split())) == most
    assert cut.replace(" ", "") == text.replace(" ", "")
    assert in_pieces("A line\n" + "=" * 99 + "\n" + "x" * 999) == "A line\n" + "=" * 99 + "\n" + "x" * 999


def test_a_page_with_a_long_rule_has_the_verdict_of_datatrove() -> None:
    page = "The keeper of the house went to the river and that was all.\n" * 20
    for signs, kept in ((10, True), (600, False)):
        text = f"{page}\n{'=' * signs}"
        assert (filters.GopherQualityFilter().filter(Theirs(text=text, id="x")) is True) is kept
        assert (GopherQuality().judge(document(text)) == document(text)) is kept
