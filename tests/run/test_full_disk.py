"""A full disk pauses a sweep with exit code 75, whoever notices it, and the same command goes on."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.commands import sweep
from harness.plan.plan import Plan
from harness.run import isolation, lifecycle, outcome, record
from harness.run.presence import Presence
from harness.run.resources import Options
from harness.store import claims
from harness.store.records import sweep_dir

from toy import ToyCell, executions, toy_plan  # isort: skip

FULL = 75


def no_room(*given: Any, number: int = errno.ENOSPC, **named: Any) -> Any:
    raise OSError(number, os.strerror(number))


def code_of(plan: Plan) -> int:
    """The exit code of a sweep, as the command line has it."""
    try:
        return sweep.work(plan, Options())
    except Exception as error:
        return cli._fail(str(error), error, 1)


Site = Callable[[pytest.MonkeyPatch, Plan], None]
SITES: dict[str, Site] = {
    "a temporary folder of a stage": lambda patch, plan: patch.setattr(isolation, "new_scratch", no_room),
    "a claim": lambda patch, plan: patch.setattr(claims, "_create", no_room),
    "who works under a claim": lambda patch, plan: patch.setattr(claims, "_replace", no_room),
    "the list of cells": lambda patch, plan: patch.setattr(sweep, "write_manifest", no_room),
    "a record": lambda patch, plan: patch.setattr(record, "write_record", no_room),
    "samples of a record": lambda patch, plan: patch.setattr(record, "_copy_samples", no_room),
    "an observer of runs": lambda patch, plan: patch.setattr(lifecycle, "registry", no_room),
    "a stage's own file": lambda patch, plan: None,
}
"""What a full disk may show in first, and how it is planted."""


def fill_log(plan: Plan, target: str) -> None:
    """The logs of a plan's stages lie where nothing can be written."""
    logs = plan.graph.store.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for key in plan.wanted():
        (logs / f"{key}.log").symlink_to(target)


@pytest.mark.parametrize("site", SITES)
def test_a_full_disk_pauses_wherever_it_shows_and_the_same_sweep_goes_on(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = {"gamma.fault": "fills_disk"} if site == "a stage's own file" else {}
    plan = toy_plan(tmp_path, [ToyCell(fault)])
    with monkeypatch.context() as patch:
        SITES[site](patch, plan)
        assert code_of(plan) == FULL
    said = capsys.readouterr().err
    assert "full" in said
    assert "run the same command again" in said
    assert not list(tmp_path.glob("outcomes/*/*.json")), "a full disk is no outcome"
    if fault:
        plan = toy_plan(tmp_path, [ToyCell({})])
    assert code_of(plan) == 0
    assert len(executions(tmp_path)) == len(set(executions(tmp_path)))
    assert len(list(sweep_dir(tmp_path, "toy").glob("*/record.json"))) == 1


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("site", ["a claim", "a record"])
def test_a_quota_and_the_largest_size_of_a_file_are_a_full_disk(
    tmp_path: Path,
    site: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = toy_plan(tmp_path, [ToyCell({})])
    with monkeypatch.context() as patch:
        owner, name = {"a claim": (claims, "_create"), "a record": (record, "write_record")}[site]
        patch.setattr(owner, name, functools.partial(no_room, number=number))
        assert code_of(plan) == FULL
    said = capsys.readouterr().err
    assert ("ulimit -f" in said) == (number == errno.EFBIG)
    assert "run the same command again" in said


def test_why_a_stage_failed_is_told_although_its_log_is_full(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, [ToyCell({"beta.fault": "raises"})])
    fill_log(plan, "/dev/full")
    assert code_of(plan) == 1
    (found,) = (outcome.Outcomes(tmp_path).read(key) for key in plan.wanted() if outcome_of(tmp_path, key))
    assert found is not None
    assert (found.status, found.reason) == ("failed", "ValueError: a planted exception")


def outcome_of(root: Path, key: str) -> bool:
    return outcome.Outcomes(root).path(key).is_file()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of any size in KiB, whose content stays when it grows."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "small", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip("nothing can be mounted here")

    def of_size(kib: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)
        return disk

    yield of_size
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_sweep_on_a_disk_that_grows_page_by_page_pauses_at_every_file_and_ends_well(
    small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a sweep is at some size the first that finds no room."""
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    codes = []
    # Later ones by several pages: the log of each try, which says why it ended, takes one.
    for pages in (*range(1, 24), *range(24, 400, 8)):
        root = small_disk(4 * pages) / "store"
        codes.append(code_of(toy_plan(root, [ToyCell({})])))
        if codes[-1] != FULL:
            break
    assert codes[-1] == 0
    assert codes[:-1] == [FULL] * (len(codes) - 1)
    assert len(codes) > 10, "the disk was full at many different files"
    mine = Presence(alone=True, folder=folder)
    assert mine.enter(), "what was paused is not there any more"
    mine.leave()
