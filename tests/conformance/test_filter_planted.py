"""The suite of filters catches what it should."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from told import told

from harness import Document, Filter, Split
from harness.conformance import test_filter as suite


class Base(Filter):
    """Drops what is short, and right."""

    name = "planted"

    @classmethod
    def trial(cls, directory: Path) -> tuple[Filter.Config, Document, Document]:
        return (
            cls.Config(),
            Document(id="long", text="a long text", domain="docs", split=Split.test),
            Document(id="short", text="x", domain="docs", split=Split.train),
        )

    def judge(self, document: Document) -> Document | str:
        return document if len(document.text) > 5 else "short"


class DropsAll(Base):
    name = "drops_all"

    def judge(self, document: Document) -> Document | str:
        return "all"


class KeepsAll(Base):
    name = "keeps_all"

    def judge(self, document: Document) -> Document | str:
        return document


class Silent(Base):
    name = "silent"

    def settle(self, document: Document, verdict: Document | str) -> Document | None:
        return None if isinstance(verdict, str) else verdict


class Renames(Base):
    name = "renames"

    def judge(self, document: Document) -> Document | str:
        return replace(document, id=f"{document.id}!")


class MovesSplit(Base):
    name = "moves_split"

    def judge(self, document: Document) -> Document | str:
        return replace(document, split=Split.train)


class Invents(Base):
    name = "invents"

    def pass_on(self, documents: Iterator[Document]) -> Iterator[Document]:
        yield from super().pass_on(documents)
        yield Document(id="new", text="invented", domain="docs", split=Split.train)


class Remembers(Base):
    name = "remembers"
    seen = 0

    def judge(self, document: Document) -> Document | str:
        type(self).seen += 1
        return document if self.seen < 2 else "seen"


class Moody(Base):
    name = "moody"

    def judge(self, document: Document) -> Document | str:
        return super().judge(document) if random.random() < 0.9 else "bad luck"


class GivesOtherReasons(Base):
    name = "gives_other_reasons"

    def judge(self, document: Document) -> Document | str:
        return document if len(document.text) > 5 else f"short, {random.random()}"


class EveryTenth(Base):
    name = "every_tenth"
    seen = 0

    def judge(self, document: Document) -> Document | str:
        self.seen += 1
        return "tenth" if self.seen % 10 == 0 else super().judge(document)


class Forgets(EveryTenth):
    """Remembers, and hands nothing on."""

    name = "forgets"
    remembers = True


class HandsOn(Forgets):
    name = "hands_on"

    def state(self) -> dict[str, np.ndarray]:
        return {"seen": np.array(self.seen)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.seen = int(state["seen"])


def test_a_filter_that_hands_on_what_it_remembers_passes(tmp_path: Path) -> None:
    suite.test_it_goes_on_from_what_it_remembers(HandsOn, tmp_path)
    suite.test_a_verdict_rests_on_the_document_where_it_says_so(HandsOn, tmp_path)


def test_a_right_filter_passes(tmp_path: Path) -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base, tmp_path)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (DropsAll, suite.test_it_keeps_what_it_should_keep),
        (KeepsAll, suite.test_it_acts_on_what_it_should_not_keep),
        (Silent, suite.test_its_report_adds_up),
        (Renames, suite.test_it_keeps_ids_domains_splits_and_order),
        (MovesSplit, suite.test_it_keeps_ids_domains_splits_and_order),
        (Invents, suite.test_an_empty_stream_stays_empty),
        (Moody, suite.test_it_judges_the_same_stream_the_same_way),
        (GivesOtherReasons, suite.test_it_judges_the_same_stream_the_same_way),
        (EveryTenth, suite.test_a_verdict_rests_on_the_document_where_it_says_so),
        (Forgets, suite.test_it_goes_on_from_what_it_remembers),
        (Remembers, suite.test_two_instances_share_nothing),
    ],
)
def test_a_planted_bug_is_caught(method: type[Filter], test: object, tmp_path: Path) -> None:
    with told():
        test(method, tmp_path)  # type: ignore[operator]


def test_a_filter_that_would_not_be_asked_is_refused() -> None:
    with pytest.raises(TypeError, match="overrides `apply`, which no stage calls; implement `judge`"):
        type("Old", (Base,), {"apply": lambda self, documents: documents})
