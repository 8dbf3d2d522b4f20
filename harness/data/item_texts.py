"""The texts of test items: the corpus's held-out documents, and files of a user; the contract of others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.axes.corpus import Document, Split
from harness.data.reading import ROWS, read_rows, read_text
from harness.method import Choice, Method
from harness.paths import path_ref


class ItemTexts(Method):
    """Where the texts of test items come from, for the stage that takes them out of training text.

    It is no choice of a user but what choices of evaluators come down to: two of them that ask for the same
    texts train one model.
    """

    axis = "item_texts"
    many = True
    common_phrases: ClassVar[bool] = False
    """Whether the items are running text, whose phrases many documents rightly share."""

    @abstractmethod
    def texts(self, documents: Callable[[Split], Iterator[Document]]) -> Iterator[str]:
        """All texts; `documents` are those of the corpus."""
        raise NotImplementedError


class HeldOutDocuments(ItemTexts):
    """Validation and test documents, whichever of them is measured, so that tuning trains the same model."""

    name = "held_out_documents"
    common_phrases = True

    def texts(self, documents: Callable[[Split], Iterator[Document]]) -> Iterator[str]:
        for split in (Split.validation, Split.test):
            for document in documents(split):
                yield document.text


class ItemFiles(ItemTexts):
    """Files with items: every text of their rows, or all of a text file."""

    name = "item_files"

    @dataclass(frozen=True, kw_only=True)
    class Config(ItemTexts.Config):
        files: list[str] = path_ref(list)
        """The files."""

    config: Config

    def texts(self, documents: Callable[[Split], Iterator[Document]]) -> Iterator[str]:
        for file in self.files(self.config, "files"):
            yield from file_texts(file)


def held_out_documents() -> Choice:
    """For an evaluator that measures on the corpus's own held-out documents."""
    return Choice(axis="item_texts", method=HeldOutDocuments, config=HeldOutDocuments.Config())


def item_files(*files: str) -> Choice:
    """For an evaluator that reads its items from files."""
    return Choice(axis="item_texts", method=ItemFiles, config=ItemFiles.Config(files=list(files)))


def file_texts(file: Path) -> Iterator[str]:
    """Every text in rows (JSON, JSON Lines, Parquet, Arrow), as parsed; else all of the file."""
    if not file.name.lower().endswith(ROWS):
        yield read_text(file)
        return
    for row in read_rows(file):
        yield from strings(row)


def strings(value: Any) -> Iterator[str]:
    """The texts in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
