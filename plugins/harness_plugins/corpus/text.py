"""Plain text files, cut into documents at blank lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import ConfigError, Corpus, Document, Method, hookimpl, path_ref, plain_bytes, read_text


class Text(Corpus):
    """UTF-8 text from a file or a folder of .txt and .md files (also .gz).

    Raises: DataError naming file and byte offset of what is not UTF-8, or the file that is empty
    """

    name = "text"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        path: str = path_ref(suffixes=(".txt", ".md", ".txt.gz"), required=True)
        """File, folder or pattern; required."""
        document_bytes: int = 10_000
        """UTF-8 bytes after which the next blank line ends a document; 0 makes each file one document."""
        domain: str = "text"
        """Domain of all documents."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.document_bytes < 0:
                raise ConfigError(f"corpus.document_bytes={self.document_bytes} must be at least 0")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        text = "".join(f"Paragraph {number} says little.\n\n" for number in range(200))
        (directory / "book.txt").write_text(text)
        return cls.Config(path=str(directory / "book.txt"), document_bytes=300)

    def documents(self) -> Iterator[Document]:
        for file in self.files(self.config, "path"):
            for number, text in enumerate(_cut(read_text(file), self.config.document_bytes)):
                name = f"{file.name}/{number}"
                yield Document(id=name, text=text, domain=self.config.domain, split=self.split(name))

    def most_bytes(self) -> int | None:
        return plain_bytes(self.files(self.config, "path"))


def _cut(text: str, size: int) -> Iterator[str]:
    """Pieces of at least `size` bytes that end at blank lines; joined they are the text."""
    start = 0
    while size and start < len(text):
        end = text.find("\n\n", start + size)
        if end < 0:
            break
        yield text[start : end + 2]
        start = end + 2
    if text[start:].strip():
        yield text[start:]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Text]
