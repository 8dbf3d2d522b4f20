"""The suite of corpora catches what it should."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from told import told

from harness import Corpus, Document, Split
from harness.conformance import test_corpus as suite


class Base(Corpus):
    """Fifty documents, and right."""

    name = "planted"

    def documents(self) -> Iterator[Document]:
        for number in range(50):
            name = f"page/{number}"
            yield Document(id=name, text=f"Page {number}.\n", domain="web", split=self.split(name))


class Empty(Base):
    name = "empty"

    def documents(self) -> Iterator[Document]:
        for document in super().documents():
            yield replace(document, text=" \n")


class Twins(Base):
    name = "twins"

    def documents(self) -> Iterator[Document]:
        for document in super().documents():
            yield replace(document, id="page")


class Shuffled(Base):
    name = "shuffled"

    def documents(self) -> Iterator[Document]:
        found = list(super().documents())
        random.SystemRandom().shuffle(found)
        yield from found


class ByOrder(Base):
    """Splits by a counter that every reader moves on."""

    name = "by_order"
    count = 0

    def documents(self) -> Iterator[Document]:
        for document in super().documents():
            type(self).count += 1
            yield replace(document, split=Split.test if self.count % 7 == 0 else Split.train)


class AlwaysHoldsOut(Base):
    name = "always_holds_out"

    def documents(self) -> Iterator[Document]:
        for number, document in enumerate(super().documents()):
            yield replace(document, split=Split.test if number % 5 == 0 else Split.train)


def test_a_right_corpus_passes(tmp_path: Path) -> None:
    suite.test_it_yields_documents_with_text(Base, tmp_path)
    suite.test_ids_are_unique(Base, tmp_path)
    suite.test_the_same_options_yield_the_same_documents(Base, tmp_path)
    suite.test_the_split_does_not_depend_on_the_number_of_documents(Base, tmp_path)
    suite.test_holding_nothing_out_leaves_only_training_documents(Base, tmp_path)
    suite.test_shares_that_leave_nothing_to_train_on_are_refused(Base)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Empty, suite.test_it_yields_documents_with_text),
        (Twins, suite.test_ids_are_unique),
        (Shuffled, suite.test_the_same_options_yield_the_same_documents),
        (ByOrder, suite.test_the_split_does_not_depend_on_the_number_of_documents),
        (AlwaysHoldsOut, suite.test_holding_nothing_out_leaves_only_training_documents),
    ],
)
def test_a_planted_bug_is_caught(method: type[Corpus], test: object, tmp_path: Path) -> None:
    with told():
        test(method, tmp_path)  # type: ignore[operator]
