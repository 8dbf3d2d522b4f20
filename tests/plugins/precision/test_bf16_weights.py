"""Weights in bfloat16: which updates they keep, what they take, and that a resume changes no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness_plugins.precision._bf16_weights import HELD, Bf16Weights, Weights
from torch import nn

from harness.conformance.tiny import TinyModel, TinySource, methods, run
from harness.plan.make import make_plan
from harness.registry.known import registry
from harness.store import Store
from harness.training import checkpoint

KINDS = (Weights.master, Weights.kahan)


def precision(kind: Weights) -> Any:
    method = registry().get("precision", "bf16")
    return method(method.Config(weights=kind))  # type: ignore[call-arg]


@pytest.mark.parametrize(("kind", "expected"), [("master", 1.0625), ("kahan", 1.0625), ("rounded", 1.0)])
def test_small_updates_add_up_where_something_is_kept_beside(kind: str, expected: float) -> None:
    """256 updates of 2^-12 are 1/16; each is less than half of 2^-7, the step of bfloat16 above 1."""
    p = nn.Parameter(torch.ones(3))
    stored = Bf16Weights([p], Weights[kind])
    for _ in range(256):
        assert p.dtype is torch.bfloat16
        with stored.whole(), torch.no_grad():
            p += 2**-12
    stored.release()
    assert p.dtype is torch.float32
    assert p.tolist() == [expected] * 3


def test_a_gradient_has_its_weights_format_on_both_sides() -> None:
    p = nn.Parameter(torch.ones(3))
    stored = Bf16Weights([p], Weights.master)
    (p * torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)).sum().backward()
    assert p.grad is not None
    assert p.grad.dtype is torch.bfloat16
    with stored.whole():
        assert p.grad.dtype is torch.float32
        assert p.grad.tolist() == [1.0, 2.0, 3.0]
    assert p.grad.dtype is torch.bfloat16


@pytest.mark.parametrize("kind", Weights)
def test_beside_a_weight_stands_what_the_plan_counts(kind: Weights) -> None:
    p = nn.Parameter(torch.ones(1000))
    stored = precision(kind).stored([p])
    held = p.numel() * p.element_size() + sum(t.numel() * t.element_size() for t in stored.tensors())
    assert held == 1000 * HELD[kind] == 1000 * precision(kind).bytes_per_weight()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_as_near_to_fp32_as_with_weights_in_fp32(kind: Weights, tmp_path: Path) -> None:
    found = {}
    for name, chosen in {
        "fp32": registry().get("precision", "fp32")(),
        "bf16": precision(Weights.fp32),
        "kept": precision(kind),
    }.items():
        _, facts = run(tmp_path / name, methods=methods(precision=chosen), steps=120)
        found[name] = facts["final_loss"]
    assert abs(found["kept"] - found["fp32"]) < max(
        2 * abs(found["bf16"] - found["fp32"]), 0.02 * found["fp32"]
    )


class Interrupted(TinySource):
    """Breaks once, when it has given so many sequences."""

    def next(self, size: int) -> dict[str, torch.Tensor]:
        if self.position >= 8 * 13:
            raise KeyboardInterrupt
        return super().next(size)


@pytest.mark.parametrize("kind", Weights)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sophia"])
def test_a_resumed_run_ends_bit_for_bit_alike(kind: Weights, optimizer: str, tmp_path: Path) -> None:
    def once(folder: str, source: TinySource) -> nn.Module:
        chosen = methods(precision=precision(kind), optimizer=registry().get("optimizer", optimizer)())
        return run(tmp_path / folder, source=source, methods=chosen, steps=20, checkpoint_every=5)[0]

    whole = once("whole", TinySource())
    with pytest.raises(KeyboardInterrupt):
        once("broken", Interrupted())
    assert checkpoint.steps(tmp_path / "broken") == [5, 10]
    for left, right in zip(whole.parameters(), once("broken", TinySource()).parameters(), strict=True):
        assert left.dtype is torch.float32
        assert torch.equal(left, right)


def test_forward_sees_bfloat16_and_a_checkpoint_holds_full_values(tmp_path: Path) -> None:
    model, seen = TinyModel(), set()
    model.hidden.register_forward_pre_hook(lambda module, args: seen.add(module.weight.dtype))
    run(tmp_path, model, methods=methods(precision=precision(Weights.master)), steps=6, checkpoint_every=4)
    assert seen == {torch.bfloat16}
    saved = checkpoint.read(tmp_path, 4)["model"]
    assert all(value.dtype is torch.float32 for value in saved.values())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in saved.values())


def test_several_processes_are_refused(tmp_path: Path) -> None:
    arguments = [
        "precision=bf16",
        "precision.weights=master",
        "parallelism=ddp",
        "parallelism.num_processes=2",
    ]
    (cell,) = make_plan(arguments, store=Store(tmp_path)).first.cells
    assert "use precision.weights=fp32" in cell.refused
