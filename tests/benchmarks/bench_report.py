"""Processor seconds, memory and page of a whole report: every format, every figure, its compact records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import simulate
from bench import show

pytestmark = pytest.mark.slow

DETAILS = 150
"""Further options and facts of a record: with the simulator's own, about what those of the demo hold."""
REPORT = """
import json, resource, sys, time
from pathlib import Path
from harness.report.making import report
folder = report("big", store=Path(sys.argv[1]), out=Path(sys.argv[2]), quiet=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = (folder / "index.html").stat().st_size
print(json.dumps([time.process_time(), peak / 1024, size / 1e6]))
"""


@pytest.mark.parametrize(
    ("sizes", "seeds", "limit_s", "limit_MB"), [((10, 10), 10, 10, 5), ((10, 10, 10), 5, 60, 25)]
)
def test_a_report_is_made_in_seconds(
    tmp_path: Path, sizes: tuple[int, ...], seeds: int, limit_s: float, limit_MB: float
) -> None:
    factors = {
        f"f{i}": {f"l{i}{v}": {f"optimizer.o{i}": v} for v in range(size)} for i, size in enumerate(sizes)
    }
    store = simulate.experiment(
        tmp_path / "s", name="big", factors=factors, seeds=tuple(range(seeds)), details=DETAILS
    )
    records = len(list(store.glob("records/big/*/record.json")))
    command = [sys.executable, "-c", REPORT, str(store), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, page = json.loads(done.stdout.splitlines()[-1])
    columns = ["records", "processor s", "peak MiB", "page MB"]
    show(f"A report of {records:,} records", columns, [[records, seconds, peak, page]])
    assert seconds <= limit_s
    assert page <= limit_MB
