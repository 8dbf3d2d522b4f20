"""What a sweep costs beside its work: 500 cells that do nothing, and Hydra's own sweeper in the same run."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from third_party import ROOT

AXES = ["attention=full,grouped_query,sliding_window,multi_query", "optimizer=adamw,lion,adafactor,sgd,adam"]
NOTHING = ["stages=[]", "scale=smoke", *AXES]
BASIC = """
import sys
import hydra
from harness.compose import config_dir, publish
publish()
sys.argv = ["basic", "-m", "hydra/sweeper=basic", *sys.argv[1:]]
hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(lambda config: None)()
"""


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds and elapsed seconds of a command; the first are the same on a busy machine."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - began


@pytest.mark.slow
def test_500_cells_that_do_nothing_take_at_most_30_seconds(tmp_path: Path, own_store: Path) -> None:
    seeds = ",".join(map(str, range(25)))
    used, elapsed = seconds(
        [sys.executable, "-m", "harness", "sweep", *NOTHING, f"seed={seeds}"], folder=tmp_path
    )
    assert len(list(own_store.glob("records/*/*/record.json"))) == 500
    one, _ = seconds([sys.executable, "-c", BASIC, *NOTHING[:2]], folder=tmp_path)
    twenty, _ = seconds([sys.executable, "-c", BASIC, *NOTHING], folder=tmp_path)
    theirs = one + (twenty - one) / 19 * 499
    print(
        f"\n500 cells: {used:.1f} processor seconds ({elapsed:.1f} elapsed); BasicSweeper {theirs:.0f}, ",
        end="",
    )
    print(f"from {one:.1f} for 1 cell and {twenty:.1f} for 20: {theirs / used:.1f} times as much")
    assert used <= 30
    assert used < theirs / 2
