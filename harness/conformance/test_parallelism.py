"""What every parallelism must do: the same training as one process."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.axes.parallelism import Parallelism
from harness.conformance.tiny import VOCAB, methods, run
from harness.registry.known import registry

AXIS = "parallelism"


def transformer(*, tied: bool = False) -> nn.Module:
    """A tiny transformer in float64."""
    import harness.model
    from harness.axes import MODEL_AXES
    from harness.compose import compose, publish

    publish()
    sizes = {"dim": 16, "num_layers": 2, "num_heads": 2, "head_dim": 8, "ffn_dim": 32, "max_length": 32}
    cell = compose([f"model.tie_embeddings={tied}", *(f"model.{k}={v}" for k, v in sizes.items())])
    spec = cell.spec()
    assert spec is not None
    choices = {axis: cell.choice(axis) for axis in MODEL_AXES}
    model: nn.Module = harness.model.build(replace(spec, vocab_size=VOCAB), choices, seed=0)  # type: ignore[arg-type]
    return model.double()


def trained(parallelism: Parallelism, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A model after a few steps in float64, with clipping."""
    clip: Any = registry().get("stabilizer", "clip_norm")
    with tempfile.TemporaryDirectory() as folder:
        chosen = methods(parallelism=parallelism, stabilizers=(clip(clip.Config(max_norm=0.1)),))
        return run(Path(folder), transformer(), methods=chosen, steps=6, log_every=1, **options)


@pytest.mark.parametrize("micro", [pytest.param(None, marks=pytest.mark.slow(always=True)), 2])
def test_the_loss_curve_and_weights_equal_one_process(method: type[Parallelism], micro: int | None) -> None:
    torch.manual_seed(0)
    expected, facts = trained(registry().get("parallelism", "single")())  # type: ignore[arg-type]
    model, found = trained(method(method.trial()), micro_batch_size=micro)
    for (step, mine), (_, theirs) in zip(found["loss_curve"], facts["loss_curve"], strict=True):
        assert abs(mine - theirs) < 1e-6, f"step {step}: {mine} is not {theirs}"
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-9, msg=name)
    assert found["tokens"] == facts["tokens"], "tokens are counted over all processes, once"
    whole, own = facts["optimizer_memory"], found["optimizer_memory"]
    split = "states" in method(method.trial()).spread().splits
    assert (0 < own < whole) if split else own == whole, f"{own} bytes of states, {whole} in one process"
