"""Corpus: where raw documents come from."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.method import Method


class Split(StrEnum):
    """Which part of the data a document belongs to; decided by a hash of its id, never by order."""

    train = "train"
    validation = "validation"
    test = "test"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text with its origin."""

    id: str
    """Unique within the corpus; splits and paired tests rest on it."""
    text: str
    """Unicode, newlines as \\n."""
    domain: str
    """Group that mixtures weigh, e.g. `docs`, `code`."""
    split: Split


class Corpus(Method):
    """A source of documents.

    State: none; the same options yield the same documents in the same order
    Raises: DataError naming file and byte offset where the input is not what it should be
    """

    axis = "corpus"
    default = "stdlib"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        validation_share: float = 0.02
        """Share of documents held out for validation (0 to 1)."""
        test_share: float = 0.02
        """Share of documents held out for the reported numbers (0 to 1)."""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """All documents of all splits, in a fixed order."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, str]:
        """What determines the content besides the options (file hashes, Python version); enters the key."""
        return {}
