"""A thousand records of a thousand items in seconds, and a page that mails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import simulate

from harness.report import making, records, tabulate
from harness.report.layout import Layout


def factors(*sizes: int) -> dict[str, object]:
    return {
        f"f{i}": {f"l{i}{v}": {f"optimizer.o{i}": v} for v in range(size)} for i, size in enumerate(sizes)
    }


@pytest.mark.slow
def test_a_thousand_records_of_a_thousand_items_are_tested_within_ten_seconds(tmp_path: Path) -> None:
    simulate.experiment(
        tmp_path, name="big", factors=factors(10, 10, 10), seeds=(0,), items=1000, tasks=("recall",)
    )
    start = time.process_time()
    results = making.results_of(records.read(tmp_path, "big"))
    built = tabulate.build(results, Layout())
    seconds = time.process_time() - start
    tested = sum(
        c.comparison is not None and c.comparison.test == "document bootstrap" for c in built.all_cells()
    )
    assert tested == 999
    assert seconds <= 10, f"{seconds:.1f} s of processor time"


@pytest.mark.slow
def test_a_page_of_two_hundred_cells_stays_below_three_megabytes(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", name="many", factors=factors(10, 20), seeds=(0,), items=100)
    out = making.report("many", store=root, out=tmp_path / "out", quiet=True)
    assert (out / "index.html").stat().st_size < 3_000_000
