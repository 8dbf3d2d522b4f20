"""Alignment that is killed again and again learns all that it drew before, as if nothing had been."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
import turns

from harness.axes.alignment import Needs
from harness.registry.known import registry
from harness.stages.align import Align
from harness.training import checkpoint

STEPS, DEATHS = 8, (1, 2, 4, 5, 7)
"""Steps of a run, and those at which an attempt dies."""
MEASURED = ("loss_curve", "reward", "kl", "answer", "held_out", "rollouts")
"""How facts begin that follow from the seed alone, not from a clock."""
METHODS = [
    *(
        name
        for name, method in registry().methods("alignment").items()
        if getattr(method, "needs", None) is Needs.rollouts
    ),
    "kto",
]


def attempt(root: Path, name: str, dies_at: int | None) -> None:
    """One process's run of the stage, in the folder of checkpoints that every attempt is handed."""
    torch.set_num_threads(1)
    options = [
        "model=pretrained",
        f"model.path={root.parent / 'hf'}",
        "instruction.num_items=40",
        f"alignment={name}",
        "reward=rules",
        "align.batch_size=8",
        "align.max_new_tokens=6",
        f"align.budget={{unit: steps, amount: {STEPS}}}",
        "align.learning_rate=1e-2",
        "align.log_every=1",
        "align.checkpoint_every=1",
    ]
    shelf = tiny.Shelf(root / f"attempt{dies_at}")
    out = shelf.new("out")

    def on_step(step: int, facts: dict[str, float]) -> None:
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    work = tiny.work(shelf, "align", out, options, {})
    found = Align().run(replace(work, checkpoints=root / "checkpoints", on_step=on_step))
    kept = {key: value for key, value in found.items() if key.startswith(MEASURED)}
    (root / "facts.json").write_text(json.dumps(kept, sort_keys=True, default=float))
    (out.path / "model.safetensors").rename(root / "model.safetensors")


@pytest.mark.parametrize("name", turns.fast(METHODS, ["grpo"]))
def test_a_killed_run_ends_bit_for_bit_as_a_whole_one(name: str, tmp_path: Path) -> None:
    tiny.pretrained(tmp_path / "hf")
    # Forked from here, where every module is loaded: on one thread of a CPU torch allows it.
    context = multiprocessing.get_context("fork")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    attempt(whole, name, None)

    def run(dies_at: int | None) -> Any:
        process = context.Process(target=attempt, args=(killed, name, dies_at))
        process.start()
        process.join(120)
        return process.exitcode

    for step in DEATHS:
        assert run(step) == -signal.SIGKILL
    assert checkpoint.steps(killed / "checkpoints")[-1] >= DEATHS[-1] - 1
    assert run(None) == 0
    assert (killed / "facts.json").read_text() == (whole / "facts.json").read_text()
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
