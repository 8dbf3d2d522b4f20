"""`harness reproduce` runs a record's cell again, elsewhere, as it ran, and says where numbers differ."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.commands.compare import reproduce
from harness.store import Store
from harness.store.records import read_record, record_dir, write_record

CELL = {
    "scale": "smoke",
    "stages": "[corpus,tokenizer,tokens,pretrain,evaluate]",
    "evaluator": ["perplexity"],
    "pretrain.threads": 2,
    "seed": 1,
    "name": "again",
}


def test_a_cell_is_run_again_with_its_threads_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path))
    frame = harness.run(CELL)
    assert set(frame["outcome"]) == {"ok"}
    cell = frame["cell"].iloc[0]
    where = record_dir(tmp_path, sweep="again", cell=cell)
    record = read_record(where)
    # A default that has changed since does not change what runs again.
    recorded = {**record, "overrides": [text for text in record["overrides"] if "threads" not in text]}
    write_record(where, recorded)
    assert reproduce([f"again/{cell[:6]}"]) == 0
    assert "reproduced" in capsys.readouterr().out

    other = Store(tmp_path / "reproduced" / cell)
    second = read_record(record_dir(other.root, sweep="again", cell=cell))
    assert second["seed"] == 1
    threads = {stage["stage"]: stage["threads"] for stage in second["stages"]}
    assert threads["pretrain"] == 2
    assert [stage["key"] for stage in second["stages"]] == [stage["key"] for stage in record["stages"]]

    for metric in recorded["metrics"]:
        metric["value"] *= 1.001
    write_record(where, recorded)
    assert reproduce([f"again/{cell}"]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS" in printed
    assert "not reproduced" in printed
