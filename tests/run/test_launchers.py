"""Launchers place workers: joblib and submitit's local executor, for real, through Hydra's command line."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.plan.need import Need
from harness.run import launch
from harness.run.resources import Options

from toy import ToyCell, toy_plan  # isort: skip

SWEEP = (
    "stages=[corpus,tokenizer]",
    "scale=smoke",
    "corpus.max_bytes=1000000",
    "tokenizer.vocab_size=300,310",
)


MEASURED = ("stages=[corpus,tokenizer,tokens,pretrain,evaluate]", "evaluator=[perplexity]", *SWEEP[1:])


def multirun(
    store: Path, *arguments: str, sweep: Sequence[str] = SWEEP
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "harness", "-m", *sweep, *arguments]
    environment = {**os.environ, "HARNESS_STORE": str(store)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=400, env=environment, cwd=store.parent, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.sweeper.workers=2"),
    ],
)
def test_a_launcher_starts_workers_that_share_one_store(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    store = tmp_path / "store"
    done = multirun(store, *launcher)
    assert done.returncode == 0, done.stderr
    assert "2 cells, 4 stages asked, 3 to run, 0 in the store" in done.stderr
    assert "3 in the store" in done.stderr, "the sweep itself had nothing left to do"
    records = list((store / "records").glob("*/*/record.json"))
    assert [json.loads(file.read_text())["outcome"]["status"] for file in records] == ["ok", "ok"]
    again = multirun(store)
    assert "0 to run, 3 in the store" in again.stderr


@pytest.mark.slow
def test_a_finished_sweep_ends_soon_and_leaves_its_report(tmp_path: Path) -> None:
    """Nothing heavy is imported where nothing is left to do: no library of models, none that draws."""
    store = tmp_path / "store"
    first = multirun(store, sweep=MEASURED)
    assert first.returncode == 0, first.stderr
    code = (
        "import sys, time; began = time.process_time()\n"
        "from harness.cli import main\n"
        f"code = main({['-m', *MEASURED]!r})\n"
        "libraries = ('transformers', 'peft', 'lm_eval', 'matplotlib', 'pandas', 'scipy')\n"
        "heavy = [name for name in libraries if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() - began < 10\n"
        "sys.exit(code)"
    )
    environment = {**os.environ, "HARNESS_STORE": str(store)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(nothing changed since it was made)" in done.stdout


TUNED = (
    "stages=[corpus,tokenizer,tokens,pretrain,evaluate]",
    "evaluator=[perplexity]",
    "scale=smoke",
    "corpus.max_bytes=300000",
    "optimizer=adamw,lion",
    "tune={search: grid, trials: 2, space: {pretrain.learning_rate: {low: 1e-3, high: 1e-2, log: true}}}",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.sweeper.workers=2"),
    ],
)
def test_workers_of_a_launcher_make_the_trials_and_then_the_cells(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    store = tmp_path / "store"
    done = multirun(store, *launcher, sweep=TUNED)
    assert done.returncode == 0, done.stderr
    placed = [line for line in done.stderr.splitlines() if "of 11 stages in the store" in line]
    assert placed, "the trials were placed"
    assert "4 cells, 20 stages asked, 0 to run, 11 in the store" in done.stderr, "all trials before any cell"
    assert "2 cells, 10 stages asked, 0 to run, 7 in the store" in done.stderr, "and the cells share the rest"
    files = list((store / "records").glob("*/*/record.json"))
    found = {file.parent.parent.name: json.loads(file.read_text()) for file in files}
    assert sorted(file.parent.parent.name for file in files) == ["optimizer"] * 2 + ["optimizer.tune"] * 4
    assert {record["outcome"]["status"] for record in found.values()} == {"ok"}
    assert list((store / "plans").glob("optimizer.tune-*.plan"))
    assert list((store / "plans").glob("optimizer-*.plan"))


def test_a_worker_refuses_a_plan_made_with_other_code_or_libraries(tmp_path: Path) -> None:
    made = toy_plan(tmp_path, [ToyCell({})])
    same, *_ = launch.read_plan(launch.write_plan(made, Options(), Need()))
    assert [cell.keys for cell in same.cells] == [cell.keys for cell in made.cells]
    for node in made.graph.nodes.values():
        node.material["fingerprint"] = "of another checkout"
        node.material["numerics"]["versions"]["torch"] = "0.1"
    with pytest.raises(
        StoreError, match=r"^code and torch on .* are not as the sweep was planned with \(for"
    ):
        launch.read_plan(launch.write_plan(made, Options(), Need()))
