"""Corpus: where raw documents come from."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.errors import ConfigError
from harness.method import Method

NAMED = 5
"""Damaged entries that are named in the facts."""


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


@dataclass
class Damage:
    """Entries of a corpus that were left out because they cannot be read."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    """What was wrong with the first ones, with file and line."""

    tell: Callable[[str], None] = field(default=lambda message: None, repr=False)
    """Is told of every one."""

    def add(self, message: str) -> None:
        """Note one."""
        self.tell(message)
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(message)


class Corpus(Method):
    """A source of documents.

    State: none; the same options yield the same documents in the same order
    Raises: DataError naming file and byte offset where the input is not what it should be
    """

    axis = "corpus"
    default = "stdlib"
    moves_facts = frozenset({"counts", "sha256"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        validation_share: float = 0.05
        """Share of documents held out for validation (0 to 1)."""
        test_share: float = 0.05
        """Share of documents held out for the reported numbers (0 to 1)."""

        def __post_init__(self) -> None:
            shares = self.validation_share, self.test_share
            if min(shares) < 0 or sum(shares) >= 1:
                raise ConfigError(
                    f"corpus.validation_share={shares[0]} and corpus.test_share={shares[1]} "
                    "must be at least 0 and sum to less than 1"
                )

    config: Config

    def __init__(self, config: Method.Config | None = None) -> None:
        super().__init__(config)
        self.damage = Damage()

    @classmethod
    def trial(cls, directory: Path) -> Config:
        """Options the conformance suite runs it with; writes the small input it needs into `directory`."""
        return cls.Config()

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """All documents of all splits, in a fixed order."""
        raise NotImplementedError

    def split(self, group: str) -> Split:
        """The split of everything called `group`, by a hash of the name: never by order, so that more
        documents move none of the others.
        """
        position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
        if position < self.config.test_share:
            return Split.test
        if position < self.config.test_share + self.config.validation_share:
            return Split.validation
        return Split.train

    def file_bytes(self) -> int | None:
        """Bytes of the files that `documents` reads, as they lie on disk; None where that is not known."""
        return None

    def most_bytes(self) -> int | None:
        """UTF-8 bytes that all documents can have at most; None where only reading them tells."""
        return None
