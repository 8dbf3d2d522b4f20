"""Runs killed twenty times, in a step or within a checkpoint, end bit for bit as whole ones."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness_plugins.precision._bf16_weights import Weights

from harness.axes.corpus import Split
from harness.conformance.tiny import VOCAB, FakeRun, TinyModel, TinySource, methods
from harness.data.packed_source import PackedSource
from harness.data.token_files import TokenFiles, TokenWriter
from harness.registry.known import registry
from harness.training import checkpoint
from harness.training.contract import BatchSource
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

KILLS, STEPS, BATCH, LENGTH = 20, 24, 8, 12
WHOLE = KILLS
"""The attempt that nobody kills."""

OPTIMIZERS = sorted(registry().methods("optimizer"))
CURRICULA = sorted(registry().methods("curriculum"))
CASES = [
    *(("optimizer", name) for name in OPTIMIZERS),
    *(("curriculum", name) for name in CURRICULA),
    ("mixture", "weights"),
    ("precision", "fp16"),
    ("precision", "bf16"),
    ("precision", "bf16 master"),
    ("precision", "bf16 kahan"),
    ("batch_schedule", "ramp"),
    ("stabilizer", "spike_rollback"),
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killed(FakeRun):
    """Dies as it reports a step."""

    at = STEPS + 1

    def on_step(self, step: int, facts: dict[str, float]) -> None:
        if step >= self.at:
            die()


def half_written(at: int) -> Callable[[Any, Any], None]:
    """torch.save that dies with half of a checkpoint of a late step on disk."""
    save = torch.save

    def dying(state: Any, file: Any) -> None:
        if state["meter"]["steps"] < at:
            return save(state, file)
        whole = io.BytesIO()
        save(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        return die()

    return dying


def source_of(axis: str, name: str, folder: Path) -> BatchSource:
    """Tiny windows; for a curriculum or a mixture, packed ones of two domains of unequal documents."""
    if axis not in ("curriculum", "mixture"):
        return TinySource()
    if not folder.exists():
        folder.mkdir()
        rng = np.random.default_rng(0)
        writer = TokenWriter(folder, vocab_size=VOCAB, bos_id=1, eos_id=0)
        for index, length in enumerate(rng.integers(3, 30, size=200)):
            ids = 2 + (index + (1 + index % 2) * np.arange(length)) % (VOCAB - 2)
            writer.add("train", ("docs", "code")[index % 2], ids.tolist(), num_bytes=int(length))
        writer.finish(Split.train)
        writer.write_index({"docs": 0.7, "code": 0.3})
    curriculum: Any = registry().get("curriculum", name)() if axis == "curriculum" else None
    planned = STEPS * BATCH // 2  # a run goes through two rounds
    return PackedSource(TokenFiles(folder), length=LENGTH, seed=0, planned=planned, curriculum=curriculum)


def attempt(axis: str, name: str, folder: Path, number: int) -> None:
    """One process: train, and die at a step a little later than the last time."""
    torch.set_num_threads(1)
    work = Killed(folder / "checkpoints")
    if number != WHOLE:
        if number % 2:
            checkpoint.torch.save = half_written(number + 1)  # type: ignore[attr-defined]
        else:
            work.at = number + 1
    replaced: dict[str, Any] = {}
    if axis in ("optimizer", "precision", "batch_schedule"):
        method, _, weights = name.partition(" ")
        chosen: Any = registry().get(axis, method)
        replaced[axis] = chosen(chosen.Config(weights=Weights[weights])) if weights else chosen()
    names = ("clip_norm", name) if axis == "stabilizer" else ("clip_norm",)
    replaced["stabilizers"] = tuple(registry().get("stabilizer", each)() for each in names)
    model = TinyModel(dropout=0.2)
    facts = train(
        model,
        source_of(axis, name, folder.parent / "tokens"),
        language_modeling_loss,
        work=work,
        settings=Settings(
            budget=Budget(unit=Unit.steps, amount=STEPS),
            learning_rate=1e-2,
            batch_size=BATCH,
            sequence_length=LENGTH,
            log_every=1,
            checkpoint_every=1,
            spike_factor=None,
        ),
        methods=methods(**replaced),
    )
    torch.save({"model": model.state_dict(), "curve": facts["loss_curve"]}, folder / "final.pt")


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "name"), CASES, ids=[f"{axis}={name}" for axis, name in CASES])
def test_twenty_kills_change_no_bit(axis: str, name: str, tmp_path: Path) -> None:
    # Forked after a whole run, which has loaded every module: on one thread of a CPU torch allows it.
    context = multiprocessing.get_context("fork")

    def run(folder: Path, number: int) -> int | None:
        folder.mkdir(exist_ok=True)
        process = context.Process(target=attempt, args=(axis, name, folder, number))
        process.start()
        process.join(120)
        return process.exitcode

    (tmp_path / "whole").mkdir()
    attempt(axis, name, tmp_path / "whole", WHOLE)
    for number in range(KILLS):
        assert run(tmp_path / "killed", number) == -signal.SIGKILL, number
    assert checkpoint.steps(tmp_path / "killed" / "checkpoints")[-1] >= KILLS - 2
    assert run(tmp_path / "killed", WHOLE) == 0
    whole, killed = (torch.load(tmp_path / each / "final.pt") for each in ("whole", "killed"))
    assert whole["curve"] == killed["curve"]
    for weight, value in whole["model"].items():
        assert torch.equal(value, killed["model"][weight]), weight
