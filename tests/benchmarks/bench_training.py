"""The training loop against a bare torch loop over the same model: `make bench` prints the ratio."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import in_turn, median_ratio, show
from torch import nn
from torch.nn import functional as F

from harness.axes import MODEL_AXES
from harness.axes.corpus import Split
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, methods
from harness.data.packed_source import PackedSource
from harness.data.token_files import TokenFiles, TokenWriter
from harness.registry.known import registry
from harness.training.contract import COUNTS
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

pytestmark = pytest.mark.slow

STEPS, BATCH, LENGTH = 16, 8, 128


def corpus(directory: Path, vocab_size: int) -> TokenFiles:
    """Documents of about 60 tokens that count up from anywhere: two to three in each sequence."""
    rng, eos = np.random.default_rng(0), 0
    writer = TokenWriter(directory, vocab_size=vocab_size, bos_id=1, eos_id=eos)
    for length in rng.integers(20, 100, size=2000):
        ids = 2 + (rng.integers(vocab_size) + np.arange(length)) % (vocab_size - 2)
        writer.add("train", "docs", ids.tolist(), num_bytes=int(length))
    writer.finish(Split.train)
    writer.write_index({"docs": 1.0})
    return TokenFiles(directory)


def build() -> tuple[nn.Module, int]:
    import harness.model

    publish()
    cell = compose([])
    spec = cell.spec()
    assert spec is not None
    choices = {axis: cell.choice(axis) for axis in MODEL_AXES}
    return harness.model.build(spec, choices, seed=0), spec.vocab_size  # type: ignore[arg-type]


def bare(model: nn.Module, files: TokenFiles) -> None:
    """What a careful user would write, on the same windows, whose documents are kept apart."""
    source = PackedSource(files, length=LENGTH, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    model.train()
    for _ in range(STEPS):
        batch = source.next(BATCH)
        labels_BT = batch.pop("labels_BT")
        inputs = {name: value for name, value in batch.items() if name not in COUNTS}
        logits = model(**inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels_BT.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def ours(model: nn.Module, files: TokenFiles, folder: Path) -> None:
    """The loop as stages run it: windows drawn from token files, with their documents kept apart."""
    source = PackedSource(files, length=LENGTH, seed=0)
    clip = registry().get("stabilizer", "clip_norm")
    train(
        model,
        source,
        language_modeling_loss,
        work=FakeRun(folder),
        settings=Settings(
            budget=Budget(unit=Unit.steps, amount=STEPS), batch_size=BATCH, sequence_length=LENGTH
        ),
        methods=methods(stabilizers=(clip(),)),
    )


def test_the_loop_is_at_least_as_fast_as_a_bare_one(tmp_path: Path) -> None:
    model, vocab_size = build()
    (tmp_path / "tokens").mkdir()
    files = corpus(tmp_path / "tokens", vocab_size)
    actions = {"bare torch": lambda: bare(model, files), "harness": lambda: ours(model, files, tmp_path)}
    found = in_turn(actions, rounds=5)
    ratio = median_ratio(found, "bare torch", "harness")
    tokens = STEPS * BATCH * LENGTH
    rows = [
        (
            name,
            f"{tokens / statistics.median(seconds):,.0f}",
            median_ratio(found, "bare torch", name),
        )
        for name, seconds in found.items()
    ]
    title = f"Training, median of {len(found['harness'])} runs of {STEPS} steps"
    show(title, ("loop", "tokens/s", "times bare torch"), rows, raw=found)
    print(f"\nharness / bare torch: {ratio:.3f} (start-up and the memory tracing of one step included)")
    # Both loops spend their time in the same kernels; the margin is what a busy machine moves a median by.
    assert ratio > 0.95
