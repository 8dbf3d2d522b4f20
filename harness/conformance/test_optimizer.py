"""What every optimizer must do."""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.axes.optimizer import Optimizer
from harness.conformance.tiny import TinyModel, TinySource, methods, run
from harness.errors import DivergedError
from harness.training.gradients import Gradients, leave_overflow_to_scaler
from harness.training.losses import language_modeling_loss

AXIS = "optimizer"


class Stepper:
    """Drives an optimizer as the loop does."""

    def __init__(self, method: type[Optimizer], model: nn.Module, rate: float = 1e-2, **options: Any) -> None:
        self.model, self.method = model, method(method.Config(**options))
        self.optimizer = self.method.build(model, rate)
        leave_overflow_to_scaler(self.optimizer)
        self.gradients = Gradients(
            model,
            language_modeling_loss,
            methods(optimizer=self.method),
            device=torch.device("cpu"),
            micro_batch_size=None,
            scaler=None,
        )
        self.source, self.steps = TinySource(), 0

    def step(self, times: int = 1) -> float:
        """Some steps; returns the last loss."""
        loss = math.nan
        for _ in range(times):
            batch = self.source.next(8)
            batch.pop("num_bytes")
            loss = float(self.gradients.compute(batch, 8).loss)
            self.method.on_gradients(self.model, self.steps)
            self.optimizer.step()
            self.gradients.zero()
            self.steps += 1
        return loss


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_it_learns(method: type[Optimizer]) -> None:
    best = math.inf
    for rate in (1e-3, 1e-2, 1e-1):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DivergedError):
            _, facts = run(
                Path(folder),
                methods=methods(optimizer=method()),
                steps=80,
                learning_rate=rate,
                spike_factor=None,
            )
            best = min(best, facts["final_loss"] / facts["first_loss"])
    assert best < 0.7, f"in 80 steps the loss fell to {best:.0%} of its start, at the best of three rates"


def test_a_learning_rate_of_zero_changes_nothing(method: type[Optimizer]) -> None:
    model = TinyModel()
    stepper = Stepper(method, model)
    before = weights(model)
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.0
    stepper.step(3)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]), f"{name} moved: read `lr` from the groups at every step"


def test_frozen_parameters_do_not_move(method: type[Optimizer]) -> None:
    model = TinyModel()
    model.hidden.weight.requires_grad_(False)
    before = weights(model)
    Stepper(method, model).step(3)
    after = weights(model)
    assert torch.equal(before["hidden.weight"], after["hidden.weight"]), (
        "a frozen parameter moved: take trained_parameters(model)"
    )
    assert not torch.equal(before["out.weight"], after["out.weight"]), (
        "a parameter that is trained did not move"
    )


def test_a_resumed_optimizer_continues_bit_for_bit(method: type[Optimizer]) -> None:
    torch.manual_seed(0)
    whole = Stepper(method, TinyModel())
    whole.step(5)
    saved = copy.deepcopy((whole.model.state_dict(), whole.optimizer.state_dict(), torch.get_rng_state()))
    whole.step(8)
    resumed = Stepper(method, TinyModel())
    resumed.model.load_state_dict(saved[0])
    resumed.optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    resumed.source.position, resumed.steps = 5 * 8, 5
    resumed.step(8)
    for name, value in weights(whole.model).items():
        assert torch.equal(value, weights(resumed.model)[name]), f"{name}: state is missing from state_dict()"


def test_decay_shrinks_matrices_and_spares_vectors(method: type[Optimizer]) -> None:
    ends = {}
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        stepper = Stepper(method, TinyModel(), weight_decay=decay)
        stepper.step(2)
        ends[decay] = weights(stepper.model)
    with_decay, without = ends[0.5], ends[0.0]
    assert not torch.equal(with_decay["out.weight"], without["out.weight"]), "weight_decay does nothing"
    torch.manual_seed(0)
    first = {decay: Stepper(method, TinyModel(), weight_decay=decay) for decay in (0.0, 0.5)}
    for stepper in first.values():
        torch.manual_seed(0)
        stepper.step(1)
    vectors = [weights(stepper.model)["norm.weight"] for stepper in first.values()]
    assert torch.equal(*vectors), "biases and norm weights are not decayed; use `groups`"


def test_an_overflow_under_a_loss_scaler_changes_nothing(method: type[Optimizer]) -> None:
    stepper = Stepper(method, TinyModel())
    stepper.step(3)
    before, state = weights(stepper.model), copy.deepcopy(stepper.optimizer.state_dict()["state"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))  # makes its scale
    batch = stepper.source.next(8)
    batch.pop("num_bytes")
    stepper.gradients.compute(batch, 8)
    next(p for p in stepper.model.parameters() if p.grad is not None).grad.view(-1)[0] = math.inf  # type: ignore[union-attr]
    scaler.unscale_(stepper.optimizer)
    scaler.step(stepper.optimizer)
    for name, value in weights(stepper.model).items():
        assert torch.equal(value, before[name]), f"{name} moved by a gradient that overflowed"
    now = stepper.optimizer.state_dict()["state"]
    why = "the state moved by a gradient that overflowed"
    torch.testing.assert_close(now, state, rtol=0, atol=0, msg=lambda found: f"{why}\n{found}")


def test_finishing_leaves_finite_weights(method: type[Optimizer]) -> None:
    stepper = Stepper(method, TinyModel())
    stepper.step(4)
    stepper.method.finish(stepper.optimizer)
    assert all(bool(value.isfinite().all()) for value in weights(stepper.model).values()), (
        "finish() leaves weights that are not finite"
    )


def test_its_state_takes_the_bytes_it_declares(method: type[Optimizer]) -> None:
    model = TinyModel(dim=32)
    model.norm.requires_grad_(False)
    stepper = Stepper(method, model)
    stepper.step(2)
    kept = {
        value.untyped_storage().data_ptr(): value.numel() * value.element_size()
        for state in stepper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    }
    held, stated = sum(kept.values()), stepper.method.state_bytes(model)
    assert held == stated, (
        f"it keeps {held} bytes between steps, and state_bytes says {stated}, which the plan counts on: set "
        "`moments`, or override `state_bytes`"
    )
