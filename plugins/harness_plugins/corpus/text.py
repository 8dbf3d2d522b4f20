"""Plain text files, cut into documents at blank lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness import (
    ConfigError,
    Document,
    Method,
    Split,
    check_limits,
    hookimpl,
    packed,
    path_ref,
    read_lines,
)
from harness_plugins.corpus._files import FileCorpus

SUFFIXES = packed(".txt", ".md")


class SplitBy(Enum):
    """How the held-out parts are chosen."""

    hash = "hash"
    """Documents, by a hash of their names."""
    position = "position"
    """The end of the text: all but the held-out shares, then validation, then test."""


class Text(FileCorpus):
    """UTF-8 text from a file, or from a folder of .txt and .md files (also .gz, .bz2, .xz, .zst).

    Raises: DataError naming file, line and byte offset of what is not UTF-8, or the file that is empty
    """

    name = "text"
    suffixes = SUFFIXES

    @dataclass(frozen=True, kw_only=True)
    class Config(FileCorpus.Config):
        path: str = path_ref(suffixes=SUFFIXES, required=True)
        """File, folder or pattern; required."""
        validation_path: str = path_ref(suffixes=SUFFIXES)
        """Files whose documents are for validation; then none of `path` is."""
        test_path: str = path_ref(suffixes=SUFFIXES)
        """Files whose documents are for testing; then none of `path` is."""
        document_bytes: int | None = 10_000
        """UTF-8 bytes after which the next blank line ends a document; null makes each file one document."""
        domain: str = "text"
        """Domain of all documents."""
        split_by: SplitBy = SplitBy.hash
        """hash | position: held-out documents anywhere, or the end of the text, cut at the very character."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "corpus", "document_bytes")
            if self.split_by is SplitBy.position and (self.validation_path or self.test_path):
                raise ConfigError("corpus.split_by=position cuts `path`; drop validation_path and test_path")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        text = "".join(f"Paragraph {number} says little.\n\n" for number in range(200))
        (directory / "book.txt").write_text(text)
        return cls.Config(path=str(directory / "book.txt"), document_bytes=300)

    def file_bytes(self) -> int | None:
        times = 2 if self.config.split_by is SplitBy.position else 1  # they are measured first
        return times * (super().file_bytes() or 0)

    def documents(self) -> Iterator[Document]:
        if self.config.split_by is SplitBy.position:
            yield from self._by_position()
        else:
            yield from super().documents()

    def read(self, name: str, file: Path, stated: Split | None) -> Iterator[Document]:
        for number, text in enumerate(self._pieces(file)):
            inner = f"{name}/{number}"
            split = stated or self.place(inner)
            yield Document(id=inner, text=text, domain=self.config.domain, split=split)

    def _by_position(self) -> Iterator[Document]:
        """Documents in their order, those that lie across a border cut there."""
        files = [(name, file) for name, file, _ in self.named_files()]
        silent = self.damaged() and (lambda what: None)  # the files are read once more, and it is told then
        total = sum(len(line) for _, file in files for line in read_lines(file, damaged=silent))
        test = round(total * (1 - self.config.test_share))
        borders = [round(total * (1 - self.config.test_share - self.config.validation_share)), test, total]
        done = 0
        for name, file in files:
            for number, piece in enumerate(self._pieces(file)):
                rest, part = piece, 0
                while rest:
                    place = next(i for i, border in enumerate(borders) if done < border)
                    text, rest = rest[: borders[place] - done], rest[borders[place] - done :]
                    done += len(text)
                    if text.strip():
                        yield Document(
                            id=f"{name}/{number}" + (f"/{part}" if part else ""),
                            text=text,
                            domain=self.config.domain,
                            split=list(Split)[place],
                        )
                    part += 1

    def _pieces(self, file: Path) -> Iterator[str]:
        return _cut(read_lines(file, damaged=self.damaged()), self.config.document_bytes)


def _cut(lines: Iterable[str], size: int | None) -> Iterator[str]:
    """Pieces of at least `size` bytes that end at blank lines; joined they are the text."""
    piece: list[str] = []
    length = 0
    for line in lines:
        piece.append(line)
        length += len(line.encode())
        if size is not None and line == "\n" and length - 2 >= size:
            yield "".join(piece)
            piece, length = [], 0
    rest = "".join(piece)
    if rest.strip():
        yield rest


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Text]
