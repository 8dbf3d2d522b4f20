"""Launchers place workers: joblib and submitit's local executor, for real, through Hydra's command line."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

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
