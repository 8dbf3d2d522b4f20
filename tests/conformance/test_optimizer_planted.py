"""Planted bugs: the optimizer suite must fail on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from told import told
from torch import nn

from harness.axes.optimizer import Optimizer
from harness.conformance import test_optimizer as suite


class Deaf(Optimizer):
    """Keeps the learning rate it was built with."""

    name = "deaf"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        class Step(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                for group in self.param_groups:
                    group["lr"] = learning_rate
                super().step()

        return Step(self.groups(model), lr=learning_rate)


class Forgetful(Optimizer):
    """Keeps its momentum outside its state."""

    name = "forgetful"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        momentum: dict[nn.Parameter, torch.Tensor] = {}

        class Step(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                for group in self.param_groups:
                    for p in group["params"]:
                        momentum[p] = momentum.get(p, 0) * 0.9 + p.grad
                        p.data.sub_(momentum[p], alpha=group["lr"])

        return Step(self.groups(model), lr=learning_rate)


class Greedy(Optimizer):
    """Decays every parameter."""

    name = "greedy"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=learning_rate,
            weight_decay=self.config.weight_decay,
        )


class Careless(Optimizer):
    """Ignores its weight decay."""

    name = "careless"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)


class Hoarder(Optimizer):
    """Keeps an average of the weights that it does not declare."""

    name = "hoarder"
    moments = 1

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        class Step(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                super().step()
                for group in self.param_groups:
                    for p in group["params"]:
                        self.state[p].setdefault("average", p.detach().clone())

        return Step(self.groups(model), lr=learning_rate, momentum=0.9)


class Uphill(Optimizer):
    """Climbs."""

    name = "uphill"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=learning_rate, maximize=True)


class Overconfident(Optimizer):
    """Insists that it looks at overflows itself, and does not."""

    name = "overconfident"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        class Step(torch.optim.SGD):
            _step_supports_amp_scaling = property(lambda self: True, lambda self, value: None)

        return Step(self.groups(model), lr=learning_rate)


def test_state_that_is_forgotten_is_named() -> None:
    with told(r": state is missing from state_dict\(\)"):
        suite.test_a_resumed_optimizer_continues_bit_for_bit(Forgetful)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Deaf, suite.test_a_learning_rate_of_zero_changes_nothing),
        (Forgetful, suite.test_a_resumed_optimizer_continues_bit_for_bit),
        (Greedy, suite.test_decay_shrinks_matrices_and_spares_vectors),
        (Careless, suite.test_decay_shrinks_matrices_and_spares_vectors),
        (Hoarder, suite.test_its_state_takes_the_bytes_it_declares),
        (Uphill, suite.test_it_learns),
        (Overconfident, suite.test_an_overflow_under_a_loss_scaler_changes_nothing),
    ],
)
def test_the_suite_finds(broken: type[Optimizer], test: Callable[[type[Optimizer]], None]) -> None:
    with told():
        test(broken)
