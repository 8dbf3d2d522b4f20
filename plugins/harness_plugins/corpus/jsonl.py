"""JSON Lines: one object a document."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import Corpus, DataError, Document, Method, hookimpl, path_ref, plain_bytes, read_rows


class Jsonl(Corpus):
    """Documents from one or several .jsonl files (also .gz).

    Raises: DataError naming file, line and byte of what is no object, or what lacks the text
    """

    name = "jsonl"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        path: str = path_ref(suffixes=(".jsonl", ".jsonl.gz"), required=True)
        """File, folder or pattern; required."""
        text_field: str = "text"
        """Key of the text."""
        domain_field: str = ""
        """Key of the domain; empty takes the name of the file."""

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        rows = (f'{{"text": "Line {number} of a web page.", "site": "a"}}\n' for number in range(100))
        (directory / "pages.jsonl").write_text("".join(rows))
        return cls.Config(path=str(directory / "pages.jsonl"), domain_field="site")

    def documents(self) -> Iterator[Document]:
        for file in self.files(self.config, "path"):
            stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
            for number, row in enumerate(read_rows(file)):
                name = f"{file.name}/{number}"
                text = row.get(self.config.text_field)
                if not isinstance(text, str):
                    raise DataError(
                        f"{file}: object {number} has no text under '{self.config.text_field}'; "
                        f"set corpus.text_field to one of {sorted(row)}"
                    )
                domain = str(row.get(self.config.domain_field) or stem) if self.config.domain_field else stem
                if text.strip():
                    yield Document(
                        id=name, text=text.replace("\r\n", "\n"), domain=domain, split=self.split(name)
                    )

    def most_bytes(self) -> int | None:
        return plain_bytes(self.files(self.config, "path"))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Jsonl]
