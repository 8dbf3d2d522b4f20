"""What every corpus must do."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness.axes.corpus import Corpus, Document, Split
from harness.errors import ConfigError

AXIS = "corpus"
LIMIT = 400


def documents(method: type[Corpus], directory: Path) -> list[Document]:
    """The first documents of a corpus under its trial options."""
    found = []
    for document in method(method.trial(directory)).documents():
        found.append(document)
        if len(found) == LIMIT:
            break
    return found


def test_it_yields_documents_with_text(method: type[Corpus], tmp_path: Path) -> None:
    found = documents(method, tmp_path)
    assert found, "no documents"
    for document in found:
        assert document.id, "an id is empty"
        assert document.text.strip(), f"document {document.id} has no text"
        assert document.domain, f"document {document.id} has no domain"
        assert "\r\n" not in document.text, f"document {document.id}: newlines are \\n"
        document.text.encode()


def test_ids_are_unique(method: type[Corpus], tmp_path: Path) -> None:
    ids = Counter(document.id for document in documents(method, tmp_path))
    assert not [name for name, number in ids.items() if number > 1], "two documents have one id"


def test_the_same_options_yield_the_same_documents(method: type[Corpus], tmp_path: Path) -> None:
    assert documents(method, tmp_path) == documents(method, tmp_path), (
        "a second reading with the same options yields other documents: draw from Config.seed alone"
    )


def test_the_split_does_not_depend_on_the_number_of_documents(method: type[Corpus], tmp_path: Path) -> None:
    corpus = method(method.trial(tmp_path))
    first = {document.id: document.split for document in documents(method, tmp_path)}
    again = {}
    for document in corpus.documents():
        again[document.id] = document.split
        if len(again) == max(1, len(first) // 2):
            break
    assert all(first[name] is split for name, split in again.items()), (
        "a document's split depends on how many are read: take self.split(id)"
    )


def test_holding_nothing_out_leaves_only_training_documents(method: type[Corpus], tmp_path: Path) -> None:
    import dataclasses

    config = dataclasses.replace(method.trial(tmp_path), validation_share=0.0, test_share=0.0)
    for number, document in enumerate(method(config).documents()):
        assert document.split is Split.train, f"{document.id} is in {document.split}"
        if number == LIMIT:
            break


def test_shares_that_leave_nothing_to_train_on_are_refused(method: type[Corpus]) -> None:
    import dataclasses

    with TemporaryDirectory() as directory:
        config = method.trial(Path(directory))
        with pytest.raises(ConfigError, match=r"corpus\.validation_share"):
            dataclasses.replace(config, validation_share=0.6, test_share=0.6)
