"""Planted bugs: the rotation suite must fail on each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from told import told
from torch import Tensor, nn

from harness.axes.rotation import Rotation
from harness.conformance import test_rotation as suite


class Householder(Rotation):
    """A correct rotation, which the broken ones below inherit."""

    name = "householder"

    def matrix(self, size: int) -> Tensor:
        return torch.eye(size).double() - torch.full((size, size), 2 / size).double()


class Stretched(Householder):
    """Not orthogonal."""

    name = "stretched"

    def matrix(self, size: int) -> Tensor:
        return 1.01 * super().matrix(size)


class Idle(Householder):
    """Says that it rotates, and does nothing."""

    name = "idle"

    def rotate(self, model: nn.Module) -> nn.Module:
        return model


class Forgetful(Householder):
    """Loads its weights into a model that does not turn what it embeds."""

    name = "forgetful"

    def empty(self, model: nn.Module) -> nn.Module:
        return model


Test = Callable[[type[Rotation]], None]
WHOLE: list[Test] = [
    suite.test_the_logits_stay_and_the_weights_change,
    suite.test_it_is_undone_exactly_enough_to_export,
    suite.test_a_stored_model_comes_back,
]


@pytest.mark.parametrize("test", WHOLE)
def test_a_correct_rotation_passes(test: Test) -> None:
    test(Householder)


@pytest.mark.parametrize(("bug", "test"), [(Idle, WHOLE[0]), (Forgetful, WHOLE[2])])
def test_a_planted_bug_is_found(bug: type[Rotation], test: Test) -> None:
    with told():
        test(bug)


def test_a_matrix_that_stretches_is_found() -> None:
    with told():
        suite.test_the_matrix_is_orthogonal_and_the_same_each_time(Stretched, 16)
