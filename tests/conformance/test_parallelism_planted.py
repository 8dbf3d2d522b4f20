"""Planted bugs: the parallelism suite must fail on each."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from harness_plugins.parallelism._processes import Replicated
from told import told
from torch import nn

from harness.conformance import test_parallelism as suite


class Lonely(Replicated):
    """Never exchanges gradients."""

    name = "lonely"

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        return model.no_sync()  # type: ignore[operator]


class Summing(Replicated):
    """Gradients are sums where averages are expected."""

    name = "summing"

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        if last:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.mul_(2)
        return super().accumulating(model, last=last)


class Repeating(Replicated):
    """Every process computes the whole batch's first half."""

    name = "repeating"

    def data_rank(self) -> tuple[int, int]:
        return 0, super().data_rank()[1]


class Forgetful(Replicated):
    """Hands back the weights it started from."""

    name = "forgetful"

    def full_state(self, model: nn.Module) -> dict[str, Any]:
        return {name: torch.zeros_like(value) for name, value in super().full_state(model).items()}

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        return super().accumulating(model, last=last) if not last else nullcontext()


SLOW = [pytest.param(bug, marks=pytest.mark.slow) for bug in (Lonely, Summing, Forgetful)]


@pytest.mark.parametrize("broken", [Repeating, *SLOW])
def test_the_suite_finds(broken: type[Replicated]) -> None:
    with told():
        suite.test_the_loss_curve_and_weights_equal_one_process(broken, 2)
