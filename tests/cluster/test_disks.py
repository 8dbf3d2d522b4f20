"""A store on a disk that is full, or that may only be read: a clear message, and nothing lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.store import Store

from .conftest import Sweep

pytestmark = pytest.mark.slow


def mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a file system here: needs root")


@pytest.fixture
def disk(sweep: Sweep) -> Iterator[Path]:
    """Where a small file system may be mounted as the sweep's store."""
    sweep.root.mkdir()
    yield sweep.root
    subprocess.run(["umount", str(sweep.root)], check=False, capture_output=True)


@pytest.mark.parametrize("kilobytes", [24, 120])
def test_a_full_disk_pauses_the_sweep_until_there_is_room(sweep: Sweep, disk: Path, kilobytes: int) -> None:
    sweep.cells, sweep.seconds = 9, 0.0
    mount(disk, f"size={kilobytes}k")
    assert sweep.start().wait(timeout=400) == 75, sweep.said()
    assert "paused: " in sweep.said()
    assert "is full. Free space (`harness store gc` removes what no record needs)" in sweep.said()
    assert "unfinished" in sweep.said()
    assert Store(disk).claims.names() == []
    assert not list(disk.glob("outcomes/*/*")), "a full disk is no outcome"
    kept = set(Store(disk).all_keys())
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    assert sweep.start().wait(timeout=400) == 0, sweep.said()
    assert kept <= set(Store(disk).all_keys())
    sweep.check(lost=4)


def test_a_disk_that_may_only_be_read_is_named_before_anything_runs(sweep: Sweep, disk: Path) -> None:
    mount(disk, "ro")
    assert sweep.start().wait(timeout=400) == 1
    assert "Read-only file system. Set HARNESS_STORE to a directory that you may write to" in sweep.said()
    assert "Traceback" not in sweep.said()
    assert not sweep.runs("started")
