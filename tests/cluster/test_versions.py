"""Two versions of the code on one store: neither takes the other's results, both find their own again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.store import Store

from .conftest import Sweep, wait_for


@pytest.mark.slow
def test_two_versions_of_a_method_share_a_store_without_mixing(sweep: Sweep, tmp_path: Path) -> None:
    sweep.cells, sweep.seconds = 2, 0.0
    own = tmp_path / "site"
    shutil.copytree(sweep.site, own)
    sweep.site, file = own, own / "timed.py"
    before = file.read_text()
    assert sweep.start().wait(timeout=400) == 0, sweep.said()
    sweep.check()
    first = set(Store(sweep.root).all_keys())
    file.write_text(before.replace("number {name}", "another number {name}"))
    assert sweep.start().wait(timeout=400) == 0, sweep.said()
    assert set(sweep.runs("finished").values()) == {2}, "changed code runs again"
    assert "2 of 2 cells were recorded with other stages (corpus: other code)" in sweep.said()
    both = set(Store(sweep.root).all_keys())
    assert first < both
    assert len(both) == 4
    file.write_text(before)
    assert sweep.start().wait(timeout=400) == 0, sweep.said()
    assert "0 to run, 2 in the store" in sweep.output().read_text()
    assert set(sweep.runs("finished").values()) == {2}


@pytest.mark.slow
def test_code_that_changes_before_a_placed_worker_starts_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    sweep.cells, sweep.seconds = 2, 0.0
    own = tmp_path / "site"
    shutil.copytree(sweep.site, own)
    sweep.site, file = own, own / "timed.py"
    placed = ("hydra/launcher=submitit_local", "hydra.sweeper.workers=1")
    process = sweep.start(*placed)
    wait_for(lambda: bool(list(sweep.root.glob("plans/*.plan"))), what=f"the plan\n{sweep.said()}")
    file.write_text(file.read_text().replace("number {name}", "another number {name}"))
    assert process.wait(timeout=400) == 1, sweep.said()
    assert "the launcher reports StoreError: code on " in sweep.said()
    assert "is not as the sweep was planned with (for corpus); start the sweep again" in sweep.said()
    assert not sweep.runs("started")
    assert sweep.start(*placed).wait(timeout=400) == 0, sweep.said()
    sweep.check()
