"""`harness show RECORD --lineage`: what was dropped or rewritten, by whom and why."""

import json
from pathlib import Path

import pytest

from harness.commands.show import main
from harness.data.lineage import Lineage
from harness.errors import StoreError
from harness.store import Store
from harness.store.records import write_record

KEYS = {"corpus": "a" * 64, "decontaminate": "b" * 64, "tokenizer": "c" * 64}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with one record whose corpus stage dropped a document and rewrote another."""
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path))
    store = Store()
    for key in KEYS.values():
        store.path(key).mkdir(parents=True)
    folder = tmp_path / "records" / "web" / "0123456789abcdef"
    folder.mkdir(parents=True)
    stages = [{"stage": stage, "part": "", "key": key} for stage, key in KEYS.items()]
    blank = {"config": {}, "experiment": {}, "levels": {}, "metrics": [], "seed": 0, "sweep": "web"}
    write_record(folder, {**blank, "cell": folder.name, "outcome": {"status": "ok"}, "stages": stages})
    return store


def test_every_document_that_went_is_printed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    where = {"domain": "pages", "split": "train"}
    with Lineage(store.path(KEYS["corpus"])) as lineage:
        lineage.add("pages/3", did="dropped", by="filter.c4", why="too few sentences", **where)
        lineage.add("pages/4", did="rewritten", by="filter.pii", why="", **where)
    with Lineage(store.path(KEYS["decontaminate"])) as lineage:
        lineage.add("pages/9", did="dropped", by="decontaminate", why="shares text with task_items")
    assert main(["web/0123", "--lineage"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pages/3 (pages, train) dropped by filter.c4: too few sentences",
        "pages/4 (pages, train) rewritten by filter.pii",
        "pages/9 dropped by decontaminate: shares text with task_items",
    ]
    assert main(["web/0123", "--lineage", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["stage"], row["id"]) for row in rows] == [
        ("corpus", "pages/3"),
        ("corpus", "pages/4"),
        ("decontaminate", "pages/9"),
    ]


def test_a_record_without_lineage_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match="no document was dropped or rewritten, or the artifacts"):
        main(["web/0123", "--lineage"])
