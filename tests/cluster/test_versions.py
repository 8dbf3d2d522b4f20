"""Two versions of the code on one store: neither takes the other's results, both find their own again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.store import Store

from .conftest import Sweep


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
