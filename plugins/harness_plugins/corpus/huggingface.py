"""A data set of the Hugging Face hub, or one saved or laid out as such on disk."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from harness import (
    CellView,
    ConfigError,
    Corpus,
    DataError,
    Document,
    Method,
    Problem,
    Split,
    check_limits,
    hookimpl,
    path_ref,
)
from harness_plugins.corpus._files import value_at

FIRST = 16
"""Rows by which a plan knows the format."""


class HuggingFace(Corpus):
    """Rows of a `datasets` data set; the split is ours, by a hash of the row's number, but for splits of the
    data set's own that are named (`corpus.validation_split=validation corpus.test_split=test` for WikiText).

    Raises: DataError with the library's reason where the data cannot be had (offline, unknown, no column)
    """

    name = "huggingface"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        path: str = path_ref(required=True, or_name=True)
        """Name on the hub, or a folder (`save_to_disk`, or Parquet, JSON, CSV, text files); required."""
        subset: str = ""
        """Configuration of the data set, where it has several."""
        revision: str = ""
        """Commit or tag on the hub; state one, or the result is not reproducible."""
        source_split: str = "train"
        """Split to read."""
        validation_split: str = ""
        """Its split for validation; then none of `source_split` is. Empty holds out by a hash."""
        test_split: str = ""
        """Its split for testing; then none of `source_split` is. Empty holds out by a hash."""
        text_field: str = "text"
        """Column of the text, or a path into one of mappings: page.text."""
        domain: str = "huggingface"
        """Domain of all documents."""
        max_documents: int | None = None
        """Rows to read; null = all."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "corpus", "max_documents")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        rows = (f'{{"text": "Row {number} of a data set."}}\n' for number in range(50))
        (directory / "train.jsonl").write_text("".join(rows))
        return cls.Config(path=str(directory))

    def documents(self) -> Iterator[Document]:
        stated = {Split.validation: self.config.validation_split, Split.test: self.config.test_split}
        own = [split for split, name in stated.items() if name]
        for number, text in self._texts(self.config.source_split):
            split = self.split(str(number))
            yield self._document(f"{number}", text, Split.train if split in own else split)
        for split in own:
            for number, text in self._texts(stated[split]):
                yield self._document(f"{split.value}/{number}", text, split)

    def _document(self, name: str, text: str, split: Split) -> Document:
        origin = Path(os.path.abspath(self.config.path)).name
        return Document(id=f"{origin}/{name}", text=text, domain=self.config.domain, split=split)

    def _texts(self, source_split: str, *, streaming: bool = False) -> Iterator[tuple[int, str]]:
        """The number and text of each row that has some."""
        if not self.config.path:
            raise ConfigError("corpus=huggingface needs corpus.path=NAME or a folder")
        for number, row in enumerate(self._rows(source_split, streaming=streaming)):
            if number == self.config.max_documents:
                return
            text = value_at(row, self.config.text_field)
            if not isinstance(text, str):
                raise DataError(
                    f"corpus.path={self.config.path}: row {number} has no text in column "
                    f"'{self.config.text_field}'; set corpus.text_field to one of {sorted(row)}"
                )
            if text.strip():
                yield number, text.replace("\r\n", "\n")

    @classmethod
    def check_files(cls, config: Any) -> None:
        splits = (config.source_split, config.validation_split, config.test_split)
        for split in splits if _is_local(config.path) else ():
            for _ in islice(cls(config)._texts(split, streaming=True) if split else (), FIRST):
                pass

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if not config.revision and not _is_local(config.path):
            yield Problem(
                where="corpus.revision",
                message=f"no revision of {config.path} is stated, so its content may change unnoticed",
                fatal=False,
            )

    def _rows(self, source_split: str, *, streaming: bool) -> Iterator[dict[str, Any]]:
        """The rows of a split, with the library's reason where they cannot be had."""
        try:
            yield from self._load(source_split, streaming=streaming)
        except Exception as error:  # the library raises anything, from OSError to its own
            raise DataError(
                f"corpus=huggingface cannot load '{self.config.path}' "
                f"(split '{source_split}'): {type(error).__name__}: {error}; "
                "offline it must be a folder or lie in the cache of `datasets`"
            ) from error

    def _load(self, source_split: str, *, streaming: bool) -> Any:
        import datasets

        folder = Path(self.config.path).expanduser().absolute()
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(folder))
            return found[source_split] if isinstance(found, dict) else found
        return datasets.load_dataset(
            str(folder) if folder.exists() else self.config.path,
            self.config.subset or None,
            split=source_split,
            revision=self.config.revision or None,
            streaming=streaming or (self.config.max_documents is not None and not folder.is_dir()),
        )


def _is_local(path: str) -> bool:
    """Whether it is no name on the hub."""
    return Path(path).expanduser().exists() or path.startswith(("/", ".", "~"))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [HuggingFace]
