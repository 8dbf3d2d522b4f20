"""What corpora in files of a user share: where they lie, damaged entries, splits of one's own."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from harness import Corpus, DataError, Document, OnError, Split, listed, path_ref, plain_bytes

FIRST = 16
"""Documents of a file by which a plan knows its format."""


def value_at(row: Mapping[str, Any], key: str) -> Any:
    """What stands under a key, or below it where it is a path: `page.text` in {page: {text: ...}}; None where
    nothing does.
    """
    if key in row:
        return row[key]
    first, _, rest = key.partition(".")
    inner = row.get(first)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


class FileCorpus(Corpus):
    """Documents from files; names are paths below what was given, so that equal ones do not clash."""

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of the files it reads in a folder."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        path: str = path_ref(required=True)
        """File, folder or pattern; required."""
        validation_path: str = path_ref()
        """Files whose documents are for validation; then none of `path` is."""
        test_path: str = path_ref()
        """Files whose documents are for testing; then none of `path` is."""
        on_error: OnError = OnError.fail
        """fail | skip: entries that cannot be read end the run, or are left out, counted and named."""

    config: Config

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        return {
            f"{split}_share": f"corpus.{split}_path names the files that are held out"
            for split in (Split.validation, Split.test)
            if getattr(config, f"{split}_path")
        }

    @classmethod
    def check_files(cls, config: Any) -> None:
        reader = cls(config)
        for name, file, stated in reader.named_files():
            for _ in islice(reader.read(name, file, stated), FIRST):
                pass

    @abstractmethod
    def read(self, name: str, file: Path, stated: Split | None) -> Iterator[Document]:
        """The documents of a file, as `named_files` gives it."""
        raise NotImplementedError

    def documents(self) -> Iterator[Document]:
        for name, file, stated in self.named_files():
            yield from self.read(name, file, stated)

    def named_files(self) -> Iterator[tuple[str, Path, Split | None]]:
        """(name, file, its split where one is stated) of all files."""
        stated = {Split.validation: self.config.validation_path, Split.test: self.config.test_path}
        for name, file in self._listed("path").items():
            yield name, file, None
        for split, path in stated.items():
            if path:
                for name, file in self._listed(f"{split.value}_path").items():
                    yield f"{split.value}/{name}", file, split

    def place(self, group: str) -> Split:
        """The split of something in `path`: by hash, but never one that has files of its own."""
        split = self.split(group)
        stated = {Split.validation: self.config.validation_path, Split.test: self.config.test_path}
        return Split.train if stated.get(split) else split

    def damaged(self) -> Callable[[str], None] | None:
        """Who is told of an entry that cannot be read; None where that is an error."""
        return self.damage.add if self.config.on_error is OnError.skip else None

    def damaging(self, message: str) -> None:
        """Tell of an entry that cannot be read, or end the run with it.

        Raises: DataError
        """
        tell = self.damaged()
        if tell is None:
            raise DataError(message)
        tell(message)

    def file_bytes(self) -> int | None:
        return sum(file.stat().st_size for _, file, _ in self.named_files())

    def most_bytes(self) -> int | None:
        return plain_bytes([file for _, file, _ in self.named_files()])

    def _listed(self, option: str) -> dict[str, Path]:
        path = getattr(self.config, option)
        return listed(path, option=f"corpus.{option}", suffixes=self.suffixes)
