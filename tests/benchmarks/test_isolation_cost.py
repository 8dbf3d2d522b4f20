"""What isolation costs: a stage in a child process of its own, beside the start of a bare interpreter."""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from third_party import ROOT

from harness.run.progress import Lines
from harness.run.resources import Options
from harness.run.worker import Worker

STARTS = 8
"""A stage may cost as many bare starts: the measure on a machine that others disturb."""


class Timed(Lines):
    """Times every stage, and a bare interpreter after each, so that both see the same machine."""

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        self.stages: list[float] = []
        self.bare: list[float] = []

    def finished(self, node: Any, outcome: Any, seconds: float) -> None:
        self.stages.append(seconds)
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        self.bare.append(time.monotonic() - began)


@pytest.mark.slow
def test_a_stage_costs_less_than_three_tenths_of_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "sweep"))
    from toy import grid, toy_plan

    plan = toy_plan(tmp_path, grid(8, 1))
    view = Timed(plan)
    Worker(plan, Options(workers=1), view).run()
    assert len(view.stages) == 25
    stage, bare = statistics.median(view.stages[1:]), statistics.median(view.bare)
    print(f"\na stage {stage:.3f} s, a bare interpreter {bare:.3f} s (medians of 24)")
    assert stage < max(0.3, STARTS * bare)
