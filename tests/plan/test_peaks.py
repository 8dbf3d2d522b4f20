"""Formulas of memory against the peak that a training measures here, by what dominates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import harness.model
from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, TinySource, methods
from harness.plan.estimate import Scored, Size, training_cost
from harness.registry.known import registry
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

WITHIN = 0.15
LENGTH = 64
SHAPE = ["model.num_layers=2", "model.num_heads=2"]
MANY_WORDS = [*SHAPE, "tokenizer.vocab_size=8192", "model.dim=32", "model.head_dim=16", "model.ffn_dim=64"]
WIDE = [*SHAPE, "tokenizer.vocab_size=1024", "model.dim=384", "model.head_dim=192", "model.ffn_dim=768"]
DEEP = ["model=mini", "model.tie_embeddings=false"]


class WholeWindows(TinySource):
    """Windows of which every token is learned, as of text."""

    def next(self, size: int) -> dict[str, torch.Tensor]:
        batch = super().next(size)
        return batch | {"labels_BT": batch["input_ids"].roll(-1, dims=1)}


@pytest.mark.parametrize(
    ("shape", "batch", "micro", "precision", "weights"),
    [
        (MANY_WORDS, 16, None, "fp32", None),
        (MANY_WORDS, 16, None, "bf16", None),
        (MANY_WORDS, 16, None, "fp8", None),
        (DEEP, 16, None, "fp32", None),
        (DEEP, 16, None, "bf16", None),
        (DEEP, 16, 4, "fp32", None),
        (WIDE, 1, None, "fp32", None),
        (WIDE, 1, None, "bf16", "master"),
        (WIDE, 1, None, "bf16", "kahan"),
    ],
    ids=[
        "logits",
        "logits-bf16",
        "logits-fp8",
        "blocks",
        "blocks-bf16",
        "accumulated",
        "states",
        "master",
        "kahan",
    ],
)
def test_a_trainings_peak_is_what_the_plan_says(
    shape: list[str], batch: int, micro: int | None, precision: str, weights: str | None, tmp_path: Path
) -> None:
    publish()
    options = [f"precision={precision}", *([f"precision.weights={weights}"] if weights else [])]
    cell = compose([*shape, *options])
    spec = cell.spec()
    assert spec is not None
    chosen: Any = {axis: cell.choice(axis) for axis in MODEL_AXES}
    way: Any = cell.choice("precision").build()  # type: ignore[union-attr]
    facts = train(
        harness.model.build(spec, chosen, seed=0),
        WholeWindows(length=LENGTH),
        language_modeling_loss,
        work=FakeRun(tmp_path),
        settings=Settings(
            budget=Budget(unit=Unit.steps, amount=2),
            batch_size=batch,
            micro_batch_size=micro,
            sequence_length=LENGTH,
            checkpoint_every=None,
        ),
        methods=methods(precision=way, optimizer=registry().get("optimizer", "adamw")()),
    )
    planned = training_cost(
        Size.of(spec),
        tokens=0,
        sequence_length=LENGTH,
        padded_tokens=(micro or batch) * LENGTH,
        accumulates=micro is not None,
        mixed=precision != "fp32",
        held=way.bytes_per_weight(),
        scored=Scored(chunked=True, rounding=way.rounding_bytes),
    )
    assert planned.memory == pytest.approx(facts["peak_memory"], rel=WITHIN)
