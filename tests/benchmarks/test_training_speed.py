"""The training loop against a bare torch loop over the same model: `make bench` prints the ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, methods
from harness.registry import registry
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

STEPS, BATCH, LENGTH = 12, 8, 128


class Windows:
    """Batches that cost nothing to make, for both loops."""

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


def processor_seconds(action: Callable[[], None]) -> float:
    """Processor time, which neighbours on the machine do not change as they change the clock's."""
    start = time.process_time()
    action()
    return time.process_time() - start


@pytest.mark.slow
def test_the_loop_is_at_least_as_fast_as_a_bare_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, vocab_size = build()
    source = Windows(vocab_size)
    bare(model, source)
    times: dict[str, list[float]] = {"bare": [], "harness": []}
    for _ in range(5):
        times["bare"].append(processor_seconds(lambda: bare(model, source)))
        times["harness"].append(processor_seconds(lambda: ours(model, source, tmp_path)))
    best = {name: min(values) for name, values in times.items()}
    ratio = best["bare"] / best["harness"]
    rate = STEPS * BATCH * LENGTH / best["harness"]
    with capsys.disabled():
        print(
            f"\ntraining loop: {rate:,.0f} tokens per processor second, {ratio:.2f} times a bare torch loop "
            f"(memory tracing of one step in {STEPS} included)"
        )
    assert ratio > 0.95
