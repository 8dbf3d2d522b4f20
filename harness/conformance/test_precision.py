"""What every precision must do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from harness.axes.precision import Precision
from harness.conformance.tiny import TinyModel, methods, run
from harness.registry.known import registry

AXIS = "precision"


def trained(precision: Precision) -> tuple[torch.nn.Module, dict[str, float]]:
    """A tiny model after 40 steps."""
    with tempfile.TemporaryDirectory() as folder:
        model, facts = run(Path(folder), methods=methods(precision=precision), steps=40)
    return model, facts


def test_weights_stay_in_fp32(method: type[Precision]) -> None:
    model, _ = trained(method())
    assert {p.dtype for p in model.parameters()} == {torch.float32}, (
        "trained weights must stay in float32; only products are computed in another format"
    )


def test_the_loss_is_near_that_of_fp32(method: type[Precision]) -> None:
    _, exact = trained(registry().get("precision", "fp32")())  # type: ignore[arg-type]
    _, found = trained(method())
    assert abs(found["final_loss"] - exact["final_loss"]) < 0.05 * exact["final_loss"], (
        "the final loss differs from fp32's by more than 5 %"
    )


def test_products_run_in_the_stated_format(method: type[Precision]) -> None:
    model = TinyModel()
    with method().autocast("cpu"):
        logits = model(torch.zeros(2, 3, dtype=torch.long)).logits
    assert logits.dtype is method().compute_dtype(), "compute_dtype() states the format of products"


def test_gradients_are_near_those_of_fp32(method: type[Precision]) -> None:
    found = []
    for precision in (registry().get("precision", "fp32")(), method()):
        model = TinyModel()
        with precision.autocast("cpu"):  # type: ignore[attr-defined]
            ids = torch.arange(24).view(2, 12) % 32
            loss = model(ids).logits.float().logsumexp(-1).mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    error = (found[1] - found[0]).norm() / found[0].norm()
    assert error < 0.1, f"relative error of the gradient {error:.2g}"
