"""A report whose records, layout and code are what they were is not made again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import simulate

from harness.axes.tracker import Tracker
from harness.method import Choice
from harness.report import commands, freshness, making, records


class Observer(Tracker):
    """Keeps what it is told, or fails."""

    name = "observer"
    told: ClassVar[list[tuple[str, str]]] = []

    def report_written(self, sweep: dict[str, Any], folder: str) -> None:
        self.told.append((sweep["sweep"], folder))


class Failing(Tracker):
    name = "failing"

    def report_written(self, sweep: dict[str, Any], folder: str) -> None:
        raise RuntimeError("no room")


CHOSEN = tuple(Choice(axis="tracker", method=kind, config=kind.Config()) for kind in (Failing, Observer))
"""The trackers of every cell."""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `after_sweep` reads of a plan, over simulated records; reports go below the test's folder."""
    monkeypatch.chdir(tmp_path)
    root = simulate.experiment(tmp_path / "store", tasks=("recall",), items=12)
    cells = [
        SimpleNamespace(cell=SimpleNamespace(id=r.cell, choices=lambda axis: CHOSEN))
        for r in records.read(root, "demo")
    ]
    return SimpleNamespace(name="demo", cells=cells, graph=SimpleNamespace(store=SimpleNamespace(root=root)))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the reports that were really made; quickly, without figures and page."""
    found: list[str] = []
    whole = making.report

    def counted(name: str, **options: Any) -> Path:
        found.append(name)
        return whole(name, **{**options, "formats": ("csv", "json"), "quiet": True})

    monkeypatch.setattr(commands, "report", counted)
    return found


def test_the_same_records_are_reported_once(plan: Any, made: list[str], capsys: Any) -> None:
    commands.after_sweep(plan)
    commands.after_sweep(plan)
    assert made == ["demo"]
    assert "nothing changed since it was made" in capsys.readouterr().out


def test_a_changed_record_sample_or_file_makes_it_again(plan: Any, made: list[str]) -> None:
    root = plan.graph.store.root
    commands.after_sweep(plan)
    simulate.edit(root, "demo", 0, metrics=lambda old: [{**old[0], "value": 9.0}, *old[1:]])
    commands.after_sweep(plan)
    assert len(made) == 2
    sample = next(root.glob("records/demo/*/samples/*.parquet"))
    sample.write_bytes(next(p for p in root.glob("records/demo/*/samples/*") if p != sample).read_bytes())
    commands.after_sweep(plan)
    assert len(made) == 3
    (root / "reports/demo/table.csv").write_text("edited")
    commands.after_sweep(plan)
    assert len(made) == 4
    (root / "reports/demo/table.csv").unlink()
    commands.after_sweep(plan)
    assert len(made) == 5
    commands.after_sweep(plan)
    assert len(made) == 5


def test_other_layouts_and_other_code_make_it_again(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plan.graph.store.root
    found = records.read(root, "demo")
    before = freshness.inputs(found, root)
    layouts = tmp_path / "layouts"
    layouts.mkdir()
    (layouts / "demo.yaml").write_text("title: another")
    with monkeypatch.context() as patch:
        patch.setattr(freshness, "shipped", lambda: {"demo": layouts / "demo.yaml"})
        assert freshness.inputs(found, root) != before
    with monkeypatch.context() as patch:
        patch.setattr(freshness, "versions", lambda libraries: {"matplotlib": "0"})
        assert freshness.inputs(found, root) != before
    assert freshness.inputs(found, root) == before


def test_a_broken_note_is_no_note(plan: Any, made: list[str]) -> None:
    commands.after_sweep(plan)
    file = freshness.cache_file(plan.graph.store.root)
    for text in ("{", json.dumps([1])):
        file.write_text(text)
        commands.after_sweep(plan)
    assert len(made) == 3


def test_trackers_are_told_of_a_new_report_once_and_a_failing_one_is_named(
    plan: Any, made: list[str], capsys: Any
) -> None:
    Observer.told.clear()
    commands.after_sweep(plan)
    commands.after_sweep(plan)
    assert Observer.told == [("demo", str(plan.graph.store.root / "reports/demo"))]
    assert capsys.readouterr().err.count("tracker failing did not take the report: no room") == 1
