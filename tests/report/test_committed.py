"""Committed reports: their tables say what their records say, and their samples may be published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.report.commands import report
from harness.report.records import read_compact

REPORTS = Path(__file__).parents[2] / "reports"
COMMITTED = sorted(path.parent for path in REPORTS.glob("*/records.json.gz"))
EMBEDDED = ("stdlib", "recall")
"""Corpora whose text may stand in a committed report."""


def differences(folder: Path, scratch: Path) -> list[str]:
    """Names of committed tables that their own records do not give."""
    report(folder.name, store=folder / "records.json.gz", out=scratch, formats=("csv", "json"), quiet=True)
    return [
        name
        for name in ("table.csv", "table.json")
        if (scratch / name).read_text(encoding="utf-8") != (folder / name).read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_a_committed_table_agrees_with_its_committed_records(folder: Path, tmp_path: Path) -> None:
    assert differences(folder, tmp_path) == [], f"rebuild it: harness report {folder.name}"


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_committed_samples_come_from_the_embedded_corpus(folder: Path) -> None:
    for record in read_compact(folder / "records.json.gz"):
        corpus = record.data["config"].get("corpus") or {}
        assert corpus.get("method") in EMBEDDED, record.cell


def test_a_changed_number_is_found(demo_store: Path, tmp_path: Path) -> None:
    folder = report("demo", store=demo_store, out=tmp_path / "demo", formats=("csv", "json"), quiet=True)
    assert differences(folder, tmp_path / "again") == []
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    table["cells"][0]["mean"] += 0.001
    (folder / "table.json").write_text(json.dumps(table))
    assert differences(folder, tmp_path / "again") == ["table.json"]
