"""Committed reports: their tables say what their records say, and their samples may be published."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.report import committed
from harness.report.arrange import arrange
from harness.report.commands import main
from harness.report.committed import findings, rebuild
from harness.report.compact import read_compact, write_compact
from harness.report.layout import read_yaml
from harness.report.making import report
from harness.report.samples import shown_items

REPORTS = Path(__file__).parents[2] / "reports"
COMMITTED = sorted(path.parent for path in REPORTS.glob("*/records.json.gz"))
EMBEDDED = ("stdlib", "planted", "recall")
"""Corpora whose text may stand in a committed report."""


TABLES = ("csv", "json", "latex")


def differences(folder: Path, scratch: Path) -> list[str]:
    """Names of committed tables that their own records do not give."""
    records, words = folder / "records.json.gz", findings(folder.name)
    report(folder.name, store=records, out=scratch, formats=TABLES, findings=words, quiet=True)
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


def unlanded(git: dict[str, Any], root: Path) -> str:
    """Why the code that a record names is no clean commit of the history; empty where it is."""
    if not git["commit"]:
        return "made by a wheel, not by a commit"
    if git["dirty"]:
        return f"made with changes on top of {git['commit'][:12]}"
    command = ["git", "-c", "safe.directory=*", "-C", str(root), "merge-base", "--is-ancestor", git["commit"]]
    known = subprocess.run([*command, "HEAD"], capture_output=True, check=False).returncode == 0
    return "" if known else f"{git['commit'][:12]} is not in the history"


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_a_committed_report_was_made_from_a_clean_landed_commit(folder: Path) -> None:
    states = [record.data["provenance"]["git"] for record in read_compact(folder / "records.json.gz")]
    if any("diff" not in git for git in states):
        pytest.xfail("made before records named harness's own commit; `make reports` makes it anew")
    shallow = ["git", "-c", "safe.directory=*", "-C", str(REPORTS), "rev-parse", "--is-shallow-repository"]
    if subprocess.run(shallow, capture_output=True, text=True, check=False).stdout.strip() != "false":
        pytest.skip("a shallow clone, or no clone, has no history to look into")
    assert sorted({unlanded(git, REPORTS) for git in states} - {""}) == []


def test_a_report_of_changed_or_unknown_code_would_be_found(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", *who, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    commit = git("rev-parse", "HEAD")
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert unlanded({"commit": commit, "dirty": False, "diff": ""}, tmp_path) == ""
    assert "with changes" in unlanded({"commit": commit, "dirty": True, "diff": "0"}, tmp_path)
    assert "not in the history" in unlanded({"commit": "0" * 40, "dirty": False, "diff": ""}, tmp_path)
    assert "a wheel" in unlanded({"commit": "", "dirty": False, "diff": "", "wheel": "0"}, tmp_path)


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


def test_a_rebuilt_report_has_the_words_that_the_experiment_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, own = tmp_path / "reports/mixture", tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    own.mkdir(parents=True)
    shutil.copy(REPORTS / "mixture/records.json.gz", folder)
    says = next(iter(findings("mixture")))
    (own / "mixture.yaml").write_text(json.dumps({"claims": [{"says": says, "finding": "In words."}]}))
    monkeypatch.setattr(committed, "config_dir", lambda: tmp_path / "conf")
    assert list(rebuild(tmp_path / "reports", formats=("md",))) == [folder]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| In words.<br>`{says}` |" in page
    assert findings("no_such_experiment") == {}


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


EXPERIMENTS = sorted((Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_shipped_experiment_declares_what_it_decides_on(file: Path) -> None:
    """By names of which each fits one metric of its committed records, where there are some."""
    declared = read_yaml(file).get("primary")
    assert declared
    records = REPORTS / file.stem / "records.json.gz"
    if records.exists():
        results = arrange(read_compact(records))
        assert all(results.metrics[results.resolve(name)] for name in declared)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.name)
def test_a_page_offers_to_show_and_hide_only_what_it_shows(folder: Path) -> None:
    """An experiment may exclude levels of a factor; the records say which were run."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    offered, _ = json.JSONDecoder().raw_decode(page, page.index('"factors":') + len('"factors":'))
    records = read_compact(folder / "records.json.gz")
    for factor, levels in offered.items():
        assert set(levels) == {record.levels[factor] for record in records if factor in record.levels}
