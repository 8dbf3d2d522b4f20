"""Measurements of speed wait to be alone on a machine, not for ever, and say so where they were not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.plan.plan import directory
from harness.report.drift import drifted_facts
from harness.report.record import Record
from harness.run import presence, worker
from harness.run.presence import Presence
from harness.run.resources import Options
from harness.run.worker import Worker
from harness.store.records import read_record

from toy import Silent, ToyCell, toy_plan  # isort: skip
from toy_stages import Gamma  # isort: skip

HOLDER = """
import sys, time
from pathlib import Path
from harness.run.presence import Presence
assert Presence(alone={alone}, folder=Path({folder!r})).enter()
print("there", flush=True)
time.sleep(600)
"""


def entered(folder: Path, *, alone: bool, patience: float | None = None) -> Presence:
    found = Presence(alone=alone, patience=patience, folder=folder)
    assert found.enter()
    return found


def enters_within(found: Presence, *, seconds: float) -> float | None:
    """Seconds after which it entered; None where it did not."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if found.enter():
            return time.monotonic() - began
        time.sleep(0.01)
    return None


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is on the machine and never goes, as one that is frozen."""
    code = HOLDER.format(alone=False, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    yield process
    process.kill()
    process.wait()


def test_who_is_first_measures_alone_and_knows_it(tmp_path: Path) -> None:
    quiet = entered(tmp_path, alone=True).quiet()
    assert quiet.alone
    assert quiet.held()
    assert not Presence(alone=False, folder=tmp_path).enter()
    assert not Presence(alone=True, folder=tmp_path).enter()


def test_a_measurement_keeps_newcomers_out_and_goes_on_beside_others_when_its_patience_ends(
    tmp_path: Path,
) -> None:
    there = entered(tmp_path, alone=False)
    waiting = Presence(alone=True, patience=0.3, folder=tmp_path)
    assert not waiting.enter()
    assert not Presence(alone=False, folder=tmp_path).enter(), "nobody starts while it waits"
    waited = enters_within(waiting, seconds=5)
    assert waited is not None
    assert waited >= 0.25
    assert not waiting.quiet().held()
    assert Presence(alone=False, folder=tmp_path).enter(), "nor does it keep anybody out any more"
    there.leave()


def test_without_a_bound_it_waits_on(tmp_path: Path) -> None:
    there = entered(tmp_path, alone=False)
    waiting = Presence(alone=True, patience=None, folder=tmp_path)
    assert enters_within(waiting, seconds=0.3) is None
    there.leave()
    assert waiting.enter()
    assert waiting.quiet().held()


def test_others_are_patient_twice_as_long_and_a_measurement_learns_that_they_came(tmp_path: Path) -> None:
    measuring = entered(tmp_path, alone=True)
    quiet = measuring.quiet()
    other = Presence(alone=False, patience=0.2, folder=tmp_path)
    waited = enters_within(other, seconds=5)
    assert waited is not None
    assert waited >= 0.35
    assert not quiet.held()
    measuring.leave()
    other.leave()
    assert entered(tmp_path, alone=True).quiet().held(), "the next one is not taken for disturbed"


def test_patience_begins_anew_for_who_comes_back_after_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_FORGET", 0.1)
    entered(tmp_path, alone=True)
    other = Presence(alone=False, patience=0.15, folder=tmp_path)
    assert not other.enter()
    time.sleep(0.4)
    assert not other.enter()


def test_a_file_of_another_user_locks_as_well(tmp_path: Path) -> None:
    for name in ("intent", "present"):
        (tmp_path / f"harness-{name}.lock").touch(mode=0o444)
    there = entered(tmp_path, alone=False)
    assert not Presence(alone=True, folder=tmp_path).enter()
    there.leave()


def test_a_sweep_says_for_whom_it_waits_then_goes_on_and_its_record_and_report_say_so(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Gamma, "surroundings", classmethod(lambda cls, *given: {"machine": "this"}))
    monkeypatch.setattr(worker, "TELL", 0.1)
    plan = toy_plan(tmp_path / "store", [ToyCell({})])
    view = Silent()
    Worker(plan, Options(patience=0.5), view).run()
    said = [text for text in view.said if "waits for" in text]
    assert f"(pid {holder.pid})" in said[0]
    assert "gamma toy." in said[0]
    assert "to measure a speed alone; in 0 s it goes on beside them" in said[0]
    record = read_record(directory(plan, plan.cells[0]))
    assert [(stage["stage"], stage.get("alone")) for stage in record["stages"]] == [
        ("alpha", None),
        ("beta", None),
        ("gamma", False),
        ("gamma", False),
    ]
    found = Record(data=record)
    _, marks = drifted_facts([found])
    assert any(
        "gamma toy.first, gamma toy.second: measured beside other work" in text for text in marks[found.cell]
    )


def test_a_measurement_that_was_alone_is_recorded_so_and_has_no_footnote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Gamma, "surroundings", classmethod(lambda cls, *given: {"machine": "this"}))
    plan = toy_plan(tmp_path / "store", [ToyCell({})])
    Worker(plan, Options(), Silent()).run()
    record = read_record(directory(plan, plan.cells[0]))
    assert [stage.get("alone") for stage in record["stages"]] == [None, None, True, True]
    assert not drifted_facts([Record(data=record)])[1]
