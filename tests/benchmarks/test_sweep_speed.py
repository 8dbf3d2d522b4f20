"""What the command line costs beside its work: cells that do nothing, plans, and Hydra's own sweeper."""

import os
import pty
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import show
from third_party import ROOT

REAPER = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a command leaves behind comes to this process
code = subprocess.call(sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    sys.exit(code)
"""
"""Runs a command, and waits for the processes that outlive it: the one that starts stages, and stages."""
AXES = ["attention=full,grouped_query,sliding_window,multi_query", "optimizer=adamw,lion,adafactor,sgd,adam"]
NOTHING = ["stages=[corpus]", "scale=smoke"]
"""Cells that share one small stage."""
BASIC = """
import sys
import hydra
from harness.compose import config_dir, publish
publish()
sys.argv = ["basic", "-m", "hydra/sweeper=basic", *sys.argv[1:]]
hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(lambda config: None)()
"""


HARNESS = [sys.executable, "-m", "harness"]
SMALL = {
    "run corpus": ["run", "scale=smoke", "stages=[corpus]"],
    "run corpus to pretrain": ["run", "scale=smoke", "stages=[corpus,tokenizer,tokens,pretrain]"],
}
"""Runs of few small stages; the stages' own work, and the process that starts them, are included."""


def environment() -> dict[str, str]:
    """As a user's: this tree, with its bytecode kept from one command to the next."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    own = {**os.environ, "PYTHONPATH": paths}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    return own


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds of a command and all its processes, which hold on a busy machine; elapsed seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    whole = [sys.executable, "-c", REAPER, *command]
    subprocess.run(whole, cwd=folder, env=environment(), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - began


@pytest.mark.slow
def test_500_cells_that_do_nothing_take_at_most_30_seconds(tmp_path: Path, own_store: Path) -> None:
    seeds = ",".join(map(str, range(500)))
    used, _ = seconds([sys.executable, "-m", "harness", "sweep", *NOTHING, f"seed={seeds}"], folder=tmp_path)
    assert len(list(own_store.glob("records/*/*/record.json"))) == 500
    few = f"seed={','.join(map(str, range(20)))}"
    one, _ = seconds([sys.executable, "-c", BASIC, *NOTHING], folder=tmp_path)
    twenty, _ = seconds([sys.executable, "-c", BASIC, *NOTHING, few], folder=tmp_path)
    theirs = one + (twenty - one) / 19 * 499
    show(
        "500 cells that do nothing",
        ["sweep", "processor s", "of the harness's"],
        [
            ["harness", used, 1.0],
            [f"BasicSweeper, from {one:.1f} s for 1 cell and {twenty:.1f} for 20", theirs, theirs / used],
        ],
    )
    assert used <= 30
    assert used < theirs / 2


def seconds_to_first_line(command: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds and elapsed seconds until a command has said something on a terminal."""
    ours, theirs = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.read(ours, 1)
    elapsed = time.monotonic() - began
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    used = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    process.kill()
    process.wait()
    os.close(ours)
    os.close(theirs)
    return used, elapsed


def peak_bytes(command: list[str], folder: Path) -> int:
    """Largest resident size of a command, without the libraries of other commands of this process."""
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "run", "sweep"])
def test_the_first_line_comes_within_a_second(command: str, tmp_path: Path, own_store: Path) -> None:
    asked = [*HARNESS, command, "experiment=demo"]
    seconds_to_first_line(asked, tmp_path)  # writes bytecode
    used, elapsed = seconds_to_first_line(asked, tmp_path)
    print(f"\n{command}: first line after {used:.2f} processor seconds ({elapsed:.2f} elapsed)")
    assert used < 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("run corpus", 4), ("run corpus to pretrain", 8)])
def test_a_run_of_small_stages_takes_seconds(
    name: str, limit: float, tmp_path: Path, own_store: Path
) -> None:
    seconds([*HARNESS, "plan", *SMALL[name][1:]], tmp_path)
    used, elapsed = seconds([*HARNESS, *SMALL[name]], tmp_path)
    again, again_elapsed = seconds([*HARNESS, *SMALL[name]], tmp_path)
    columns = ["", "processor s", "elapsed s"]
    show(f"harness {name}", columns, [["first", used, elapsed], ["again", again, again_elapsed]])
    assert used < limit


@pytest.mark.slow
def test_the_cost_of_a_plan_is_linear_in_its_cells(tmp_path: Path, own_store: Path) -> None:
    demo = [*HARNESS, "plan", "experiment=demo"]
    seconds(demo, tmp_path)
    of_demo = seconds(demo, tmp_path)[0]
    rows: list[list[object]] = [["demo", of_demo, ""]]
    used: dict[int, float] = {}
    for cells in (20, 1000, 10_000):
        asked = [*HARNESS, "plan", *AXES, f"seed={','.join(map(str, range(cells // 20)))}"]
        used[cells], _ = seconds(asked, tmp_path)
        peak = peak_bytes(asked, tmp_path) / 1e6
        rows.append([f"{cells:,} cells", used[cells], peak])
    show("Plans", ["plan", "processor s", "peak MB"], rows)
    first = (used[1000] - used[20]) / 980
    later = (used[10_000] - used[1000]) / 9000
    print(f"a cell: {1e3 * first:.1f} ms up to 1,000 cells, {1e3 * later:.1f} ms above")
    assert of_demo < 3
    assert used[1000] < 8
    assert used[10_000] < 60
    assert peak < 400
    assert later < 1.5 * first


@pytest.mark.slow
def test_a_finished_demo_started_again_takes_seconds(tmp_path: Path, own_store: Path) -> None:
    demo = [*HARNESS, "sweep", "experiment=demo", "scale=smoke"]
    seconds(demo, tmp_path)
    used, elapsed = seconds(demo, tmp_path)
    show("The finished demo, started again", ["", "processor s", "elapsed s"], [["", used, elapsed]])
    assert used < 5
