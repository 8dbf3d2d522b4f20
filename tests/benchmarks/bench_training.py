"""The training loop against a bare torch loop over the same model: `make bench` prints the ratio."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import in_turn, median_ratio, show
from torch import nn
from torch.nn import functional as F

from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, methods
from harness.registry import registry
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

pytestmark = pytest.mark.slow

STEPS, BATCH, LENGTH = 16, 8, 128


class Windows:
    """Batches that cost nothing to make, for both loops."""

    num_samples = None

    def __init__(self, vocab_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocab_size, (BATCH, LENGTH + 1), generator=generator)
        self.batch = {"input_ids": ids[:, :-1].contiguous(), "labels_BT": ids[:, 1:].contiguous()}

    def next(self, size: int) -> dict[str, torch.Tensor]:
        return dict(self.batch)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def build() -> tuple[nn.Module, int]:
    import harness.model

    publish()
    cell = compose([])
    spec = cell.spec()
    assert spec is not None
    choices = {axis: cell.choice(axis) for axis in MODEL_AXES}
    return harness.model.build(spec, choices, seed=0), spec.vocab_size  # type: ignore[arg-type]


def bare(model: nn.Module, source: Windows) -> None:
    """What a careful user would write."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    model.train()
    for _ in range(STEPS):
        batch = source.next(BATCH)
        logits = model(batch["input_ids"], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels_BT"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def ours(model: nn.Module, source: Windows, folder: Path) -> None:
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
    source = Windows(vocab_size)
    actions = {"bare torch": lambda: bare(model, source), "harness": lambda: ours(model, source, tmp_path)}
    found = in_turn(actions, rounds=5)
    ratio = median_ratio(found, "bare torch", "harness")
    rows = [
        (name, f"{STEPS * BATCH * LENGTH / statistics.median(seconds):,.0f}")
        for name, seconds in found.items()
    ]
    show(f"Training, median of {len(found['harness'])} runs of {STEPS} steps", ("loop", "tokens/s"), rows)
    print(f"\nharness / bare torch: {ratio:.3f} (start-up and the memory tracing of one step included)")
    # Both loops spend their time in the same kernels; the margin is what a busy machine moves a median by.
    assert ratio > 0.95
