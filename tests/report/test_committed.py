"""Committed reports: their tables say what their records say, and their samples may be published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.report.commands import main, report
from harness.report.committed import rebuild
from harness.report.records import read_compact, write_compact
from harness.report.samples import shown_items

REPORTS = Path(__file__).parents[2] / "reports"
COMMITTED = sorted(path.parent for path in REPORTS.glob("*/records.json.gz"))
EMBEDDED = ("stdlib", "recall")
"""Corpora whose text may stand in a committed report."""


TABLES = ("csv", "json", "latex")


def differences(folder: Path, scratch: Path) -> list[str]:
    """Names of committed tables that their own records do not give."""
    report(folder.name, store=folder / "records.json.gz", out=scratch, formats=TABLES, quiet=True)
    return [
        name
        for name in ("table.csv", "table.json", "table.tex")
        if (scratch / name).read_text(encoding="utf-8") != (folder / name).read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_a_committed_table_agrees_with_its_committed_records(folder: Path, tmp_path: Path) -> None:
    assert differences(folder, tmp_path) == [], "rebuild it: make tables"


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_committed_samples_come_from_the_embedded_corpus(folder: Path) -> None:
    for record in read_compact(folder / "records.json.gz"):
        corpus = record.data["config"].get("corpus") or {}
        assert corpus.get("method") in EMBEDDED, record.cell


def test_a_changed_number_is_found(demo_store: Path, tmp_path: Path) -> None:
    folder = report("demo", store=demo_store, out=tmp_path / "demo", formats=TABLES, quiet=True)
    assert differences(folder, tmp_path / "again") == []
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    table["cells"][0]["mean"] += 0.001
    (folder / "table.json").write_text(json.dumps(table))
    assert differences(folder, tmp_path / "again") == ["table.json"]


def test_committed_reports_are_rebuilt_from_their_records_alone(demo_store: Path, tmp_path: Path) -> None:
    folder = report("demo", store=demo_store, out=tmp_path / "demo", formats=("csv", "json"), quiet=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "table.csv").write_text("stale")
    (folder / "table.json").unlink()
    assert list(rebuild(tmp_path, formats=("csv", "json"))) == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_command_rebuilds_every_committed_report_or_one(
    demo_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = report("demo", store=demo_store, out=tmp_path / "demo", formats=("csv",), quiet=True)
    for arguments in ([], ["demo"]):
        (folder / "table.csv").unlink()
        assert main(["--committed", *arguments, "--out", str(tmp_path), "--format", "csv"]) == 0
        assert (folder / "table.csv").exists()
    assert capsys.readouterr().out.count(f"Report: {folder}") == 2
    with pytest.raises(DataError, match="no committed report to rebuild"):
        list(rebuild(tmp_path, only="other"))


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_committed_records_written_again_are_the_same(folder: Path, tmp_path: Path) -> None:
    found = read_compact(folder / "records.json.gz")
    write_compact(found, tmp_path / "once.json", shown=shown_items(found))
    again = read_compact(tmp_path / "once.json")
    write_compact(again, tmp_path / "twice.json", shown=shown_items(again))
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()
