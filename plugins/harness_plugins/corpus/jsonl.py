"""Rows: one object a document, from JSON Lines, Parquet or Arrow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    LINES,
    TABLES,
    Document,
    Method,
    Split,
    hookimpl,
    numbered_rows,
    path_ref,
    stem,
)
from harness_plugins.corpus._files import FileCorpus, value_at

SUFFIXES = (*LINES, *TABLES)
SPLITS = {
    **dict.fromkeys(("valid", "val", "dev", "eval"), Split.validation),
    "training": Split.train,
    "testing": Split.test,
}
"""Other words for a split, in small letters."""


class Jsonl(FileCorpus):
    """Documents from rows: .jsonl and .ndjson (also .gz, .bz2, .xz, .zst), .parquet and .arrow files.

    Raises: DataError naming file, line and byte of what is no object, or what lacks the text
    """

    name = "jsonl"
    suffixes = SUFFIXES

    @dataclass(frozen=True, kw_only=True)
    class Config(FileCorpus.Config):
        path: str = path_ref(suffixes=SUFFIXES, required=True)
        """File, folder or pattern; required."""
        validation_path: str = path_ref(suffixes=SUFFIXES)
        """Files whose documents are for validation; then none of `path` is."""
        test_path: str = path_ref(suffixes=SUFFIXES)
        """Files whose documents are for testing; then none of `path` is."""
        text_field: str = "text"
        """Key of the text, or a path of keys: page.text."""
        domain_field: str = ""
        """Key or path of the domain; empty takes the name of the file."""
        split_field: str = ""
        """Key or path of the split (train, validation, test, or other words); empty decides by a hash."""

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        rows = (f'{{"text": "Line {number} of a web page.", "site": "a"}}\n' for number in range(100))
        (directory / "pages.jsonl").write_text("".join(rows))
        return cls.Config(path=str(directory / "pages.jsonl"), domain_field="site")

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        shares = ("validation_share", "test_share") if config.split_field else ()
        return {**super().idle(config), **dict.fromkeys(shares, "corpus.split_field says each row's split")}

    def read(self, name: str, file: Path, stated: Split | None) -> Iterator[Document]:
        for number, row in numbered_rows(file, damaged=self.damaged()):
            text = value_at(row, self.config.text_field)
            if not isinstance(text, str):
                self._lacks_text(file, number, row)
                continue
            if text.strip():
                inner = f"{name}/{number}"
                split = stated or self._split(file, number, row, inner)
                if split is None:
                    continue
                domain = value_at(row, self.config.domain_field)
                yield Document(
                    id=inner,
                    text=text.replace("\r\n", "\n"),
                    domain=stem(name) if domain in (None, "") else str(domain),
                    split=split,
                )

    def _lacks_text(self, file: Path, number: int, row: dict[str, Any]) -> None:
        found = value_at(row, self.config.text_field)
        what = "no text" if found is None else f"{type(found).__name__}, not text,"
        self.damaging(
            f"{file}: object {number} has {what} under '{self.config.text_field}'; "
            f"set corpus.text_field to one of {sorted(row)}, or corpus.on_error=skip"
        )

    def _split(self, file: Path, number: int, row: dict[str, Any], inner: str) -> Split | None:
        """The split of a row; None where it names none, which is damage."""
        if not self.config.split_field:
            return self.place(inner)
        word = str(value_at(row, self.config.split_field)).strip().lower()
        if word in SPLITS or word in list(Split):
            return SPLITS.get(word) or Split(word)
        self.damaging(
            f"{file}: object {number} has '{word}' under '{self.config.split_field}'; "
            f"a split is one of {[*map(str, Split), *SPLITS]}; correct it, or set corpus.on_error=skip"
        )
        return None


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Jsonl]
