"""What every tracker must do."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from harness.axes.tracker import Tracker

AXIS = "tracker"

RECORD: dict[str, Any] = {
    "outcome": {"status": "ok", "reason": "", "stage": None, "step": None},
    "metrics": [
        {"evaluator": "perplexity", "task": "perplexity", "metric": "bits_per_byte", "value": 2.5,
         "unit": "bits/byte", "higher_is_better": False, "stderr": None, "n": 3},
        {"evaluator": "lm_eval", "task": "recall", "metric": "acc", "value": 0.25,
         "unit": "", "higher_is_better": True, "stderr": 0.1, "n": 20},
        {"evaluator": "win_rate", "task": "chat", "metric": "length_controlled", "value": None,
         "unit": "", "higher_is_better": True, "stderr": None, "n": 0},
    ],
}  # fmt: skip
STEPS: tuple[dict[str, Any], ...] = (
    {"loss": 3.0, "tokens_per_second": 10.0},
    {"loss": float("nan")},
    {"loss": float("inf")},
    {"loss": None, "phase": "warm-up", "skipped": True},
    {f"layer {i}": 0.1 * i for i in range(500)},
)
"""Numbers as a rule; what is undefined is None, and a third party's stage may log words."""


class Told(NamedTuple):
    """What a tracker did when it was told of a whole cell."""

    written: dict[str, int]
    """Files in the record's directory and their sizes."""
    elsewhere: list[str]
    """Files it left in the working directory."""
    run_kept: bool
    record_kept: bool


def run_of(directory: Path) -> dict[str, Any]:
    """A cell as trackers meet it."""
    return {
        "cell": "0123456789abcdef", "sweep": "trial", "seed": 0, "levels": {"peft": "lora"},
        "overrides": ["peft=lora"], "config": {"peft": {"method": "lora", "rank": 8}, "stages": ["pretrain"]},
        "provenance": {"harness": "0"}, "directory": str(directory),
    }  # fmt: skip


def tell(tracker: Tracker, run: dict[str, Any], record: dict[str, Any]) -> None:
    """A cell's whole life."""
    tracker.run_started(run)
    for step, facts in enumerate(STEPS):
        tracker.training_step(run, "pretrain", step, dict(facts))
    measured: dict[str, Any] = {"tokens": 100, "reused": False, "curve": [1, 2], "note": "x", "none": None}
    tracker.stage_finished(run, "pretrain", measured)
    tracker.stage_finished(run, "evaluate.lm_eval.recall", {"reused": True})
    tracker.cell_finished(run, record)


TOLD: dict[type[Tracker], Told] = {}
"""One telling serves all tests of a method."""


def told(method: type[Tracker]) -> Told:
    """What became of a tracker that was told of one cell."""
    if method not in TOLD:
        TOLD[method] = tell_alone(method)
    return TOLD[method]


def tell_alone(method: type[Tracker]) -> Told:
    """The tracker told of one cell, in a working directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        directory, here = Path(name) / "record", Path(name) / "here"
        directory.mkdir()
        here.mkdir()
        run, record, before = run_of(directory), copy.deepcopy(RECORD), Path.cwd()
        os.chdir(here)
        try:
            tell(method(), run, record)
        finally:
            os.chdir(before)
        written = {
            str(p.relative_to(directory)): p.stat().st_size for p in directory.rglob("*") if p.is_file()
        }
        elsewhere = [str(path) for path in here.rglob("*")]
        return Told(written, elsewhere, run == run_of(directory), record == RECORD)


def test_it_writes_into_the_records_directory_only(method: type[Tracker]) -> None:
    found = told(method)
    assert sum(found.written.values()) > 0, "keep something of the run"
    assert not found.elsewhere, "write below run['directory'], not into the working directory"


def test_what_it_is_told_stays_as_it_was(method: type[Tracker]) -> None:
    found = told(method)
    assert found.run_kept, "copy `run` before you change it"
    assert found.record_kept, "copy `record` before you change it"


def test_a_report_stays_as_it_was(method: type[Tracker]) -> None:
    with tempfile.TemporaryDirectory() as name:
        report, before = Path(name) / "report", Path.cwd()
        report.mkdir()
        (report / "index.html").write_text("<h1>trial</h1>")
        records = Path(name) / "records"
        records.mkdir()
        sweep = {"sweep": "trial", "directory": str(records)}
        here = Path(name) / "here"
        here.mkdir()
        os.chdir(here)
        try:
            method().report_written(dict(sweep), str(report))
        finally:
            os.chdir(before)
        assert [path.name for path in report.iterdir()] == ["index.html"], (
            "a file of the report was changed, added or removed"
        )
        assert not list(here.iterdir()), "write below sweep['directory'], not into the working directory"


def test_a_cell_that_ends_before_its_first_stage_is_no_error(method: type[Tracker]) -> None:
    with tempfile.TemporaryDirectory() as name:
        tracker, run = method(), run_of(Path(name))
        tracker.run_started(run)
        tracker.cell_finished(run, {"outcome": {"status": "oom", "reason": "no memory"}, "metrics": []})
