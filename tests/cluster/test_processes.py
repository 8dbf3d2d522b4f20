"""Cells of one and of two processes in one sweep: each launched with what it needs, with the same loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from third_party import harness

CELLS = ["stages=[corpus,tokenizer,tokens,pretrain,evaluate]", "scale=smoke", "corpus.max_bytes=300000"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=submitit_local", "hydra.sweeper.workers=1"]])
def test_cells_of_different_sizes_share_a_sweep(tmp_path: Path, own_store: Path, launcher: list[str]) -> None:
    sizes = "cells=[{parallelism: single},{parallelism: ddp,parallelism.num_processes: 2}]"
    done = harness(["sweep", *CELLS, sizes, *launcher], cwd=tmp_path, start=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(file.read_text()) for file in own_store.glob("records/*/*/record.json")]
    assert [record["outcome"]["status"] for record in found] == ["ok", "ok"]
    processes = [record["config"]["parallelism"]["num_processes"] for record in found]
    assert sorted(processes) == [1, 2]
    losses = [
        metric["value"] for record in found for metric in record["metrics"] if metric["metric"] == "loss"
    ]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    if launcher:
        assert len(list(own_store.glob("plans/*.plan"))) == 2, "one launch for each resource class"
