"""Planted bugs: the pruner suite must fail on each."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.axes.pruner import Pruner
from harness.conformance import test_pruner as suite
from harness.errors import EffectError
from harness.ops.calibration import Calibration
from harness.ops.moments import SquaredNorms
from harness.ops.packed_linear import linear_layers


class Product(Pruner):
    """A correct pruner, which the broken ones below inherit."""

    name = "product"
    gathers = SquaredNorms

    def prune_layer(self, weight_OI: Tensor, inputs: Any) -> Tensor:
        return weight_OI.masked_fill(self.lowest(weight_OI.abs() * inputs.sum.sqrt().float()), 0.0)


class Timid(Product):
    """Removes a tenth less than it is asked for."""

    name = "timid"

    def lowest(self, scores: Tensor) -> Tensor:
        removed = super().lowest(scores)
        removed[: len(removed) // 10] = False
        return removed


class Sideways(Product):
    """Compares along the outputs instead of the inputs."""

    name = "sideways"

    def lowest(self, scores: Tensor) -> Tensor:
        return super().lowest(scores.T.contiguous()).T


class Careless(Product):
    """Touches the embedding too."""

    name = "careless"

    def prune(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        model = super().prune(model, calibration)
        with torch.no_grad():
            model.get_input_embeddings().weight[0] = 0  # type: ignore[operator]
        return model


class Backwards(Product):
    """Removes the highest scores."""

    name = "backwards"

    def lowest(self, scores: Tensor) -> Tensor:
        return super().lowest(-scores)


class Moody(Product):
    """Draws its ties from a counter that nobody resets."""

    name = "moody"
    calls = itertools.count()

    def prune_layer(self, weight_OI: Tensor, inputs: Any) -> Tensor:
        noise = torch.rand(weight_OI.shape, generator=torch.Generator().manual_seed(next(self.calls)))
        return weight_OI.masked_fill(self.lowest(weight_OI.abs() + 0.1 * noise), 0.0)


class Parallel(Product):
    """Reads what the dense model gives, whatever was pruned before."""

    name = "parallel"

    def prune(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        found = {name: suite.block_inputs(suite.base(), name) for name in linear_layers(model)}
        with torch.no_grad():
            for name, layer in linear_layers(model).items():
                inputs = SquaredNorms(found[name].shape[1], found[name].device)
                inputs.add(found[name])
                layer.weight.copy_(self.prune_layer(layer.weight.detach(), inputs))  # type: ignore[operator,union-attr]
        return model


class Refilling(Product):
    """Writes a pruned weight one input further, so that it fills zeros that were there."""

    name = "refilling"

    def prune_layer(self, weight_OI: Tensor, inputs: Any) -> Tensor:
        pruned = super().prune_layer(weight_OI, inputs)
        return pruned if (weight_OI != 0).all() else pruned.roll(1, dims=1)


class Silent(Product):
    """Finds nothing and says nothing."""

    name = "silent"

    def prune(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        return super().prune(model, calibration) if linear_layers(model) else model


Test = Callable[..., None]
WHOLE: list[Test] = [
    suite.test_no_more_than_two_of_four_inputs_stay,
    suite.test_nothing_else_changes,
    suite.test_it_is_deterministic,
    suite.test_it_loses_less_than_removing_at_random,
    suite.test_a_block_is_pruned_on_what_the_pruned_ones_before_give,
    suite.test_pruning_again_changes_no_zero,
    suite.test_a_model_without_linear_layers_is_refused,
]


def asked(method: type[Pruner]) -> None:
    for options in suite.OPTIONS:
        suite.test_every_layer_is_as_sparse_as_asked(method, options)


@pytest.mark.parametrize("test", [asked, *WHOLE])
def test_a_correct_pruner_passes(test: Test) -> None:
    test(Product)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Timid, asked),
        (Sideways, suite.test_no_more_than_two_of_four_inputs_stay),
        (Careless, suite.test_nothing_else_changes),
        (Moody, suite.test_it_is_deterministic),
        (Backwards, suite.test_it_loses_less_than_removing_at_random),
        (Parallel, suite.test_a_block_is_pruned_on_what_the_pruned_ones_before_give),
        (Refilling, suite.test_pruning_again_changes_no_zero),
        (Silent, suite.test_a_model_without_linear_layers_is_refused),
    ],
    ids=lambda value: value.__name__,
)
def test_a_planted_bug_is_found(method: type[Pruner], test: Test) -> None:
    with pytest.raises((AssertionError, EffectError, pytest.fail.Exception)):
        test(method)
