"""Planted bugs: the quantizer suite must fail on each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from told import told
from torch import Tensor, nn

from harness.axes.quantizer import Quantizer
from harness.conformance import test_quantizer as suite
from harness.ops.calibration import Calibration
from harness.ops.packed_linear import PackedLinear, weight_matrix


class Int8Linear(PackedLinear):
    """One scale, one byte a weight."""

    codes: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Module) -> None:
        weight = weight_matrix(layer)
        super().__init__(weight.shape[1], weight.shape[0], layer.bias)  # type: ignore[arg-type]
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(1))

    def dequantize(self) -> Tensor:
        return self.codes.float() * self.scale

    def fill(self, weight: Tensor) -> Int8Linear:
        self.scale.copy_(weight.abs().amax() / 127)
        self.codes.copy_((weight / self.scale).round())
        return self


class Int8(Quantizer):
    """A correct quantizer, which the broken ones below inherit."""

    name = "int8"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        return Int8Linear(layer).fill(weight_matrix(layer))

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        return self.swap(model, self.layer)

    def empty(self, model: nn.Module) -> nn.Module:
        return self.swap(model, lambda name, layer: Int8Linear(layer))

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return 8 + 32 / (in_features * out_features)


class Unbiased(Int8):
    """Loses the bias."""

    name = "unbiased"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        packed = Int8Linear(layer).fill(weight_matrix(layer))
        packed.bias = None
        return packed


class Boastful(Int8):
    """States half of the bits it stores."""

    name = "boastful"

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return 4.0


class FakeLinear(Int8Linear):
    """Keeps the weight in full precision beside the codes."""

    def fill(self, weight: Tensor) -> Int8Linear:
        super().fill(weight)
        self.kept = weight.clone()
        return self

    def stored_bits(self) -> int:
        return 8 * self.num_weights()

    def dequantize(self) -> Tensor:
        return self.kept


class Fake(Int8):
    """Computes with weights it does not store."""

    name = "fake"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        return FakeLinear(layer).fill(weight_matrix(layer))


class Random(Int8):
    """Rounds up or down by chance."""

    name = "random"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        weight = weight_matrix(layer)
        return Int8Linear(layer).fill(weight + (torch.rand_like(weight) - 0.5) * weight.abs().max() / 127)


class Careless(Int8):
    """Forgets the scale."""

    name = "careless"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        packed = Int8Linear(layer).fill(weight_matrix(layer))
        packed.codes.copy_(packed.codes.flip(0))
        return packed


class Lazy(Int8):
    """Leaves a layer as it is."""

    name = "lazy"

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        down = model.model.layers[0].mlp.down_proj  # type: ignore[union-attr]
        super().quantize(model, calibration)
        model.model.layers[0].mlp.down_proj = down  # type: ignore[union-attr]
        return model


class Opaque(Int8):
    """Cuts the gradient to what lies below."""

    name = "opaque"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        packed = Int8Linear(layer).fill(weight_matrix(layer))
        packed.register_forward_pre_hook(lambda module, args: (args[0].detach() + 0 * args[0],))
        return packed


class OtherWeightLinear(Int8Linear):
    """Multiplies by something else than it says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.02


class Inconsistent(Int8):
    """Its forward pass is not that of its weight."""

    name = "inconsistent"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        return OtherWeightLinear(layer).fill(weight_matrix(layer))


class TernaryLinear(PackedLinear):
    """-1, 0 or 1 times one scale: five codes in a byte (3^5 = 243), 1.6 bits a weight."""

    codes: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Module) -> None:
        weight = weight_matrix(layer)
        super().__init__(weight.shape[1], weight.shape[0], layer.bias)  # type: ignore[arg-type]
        width = -(-weight.shape[1] // 5)
        self.register_buffer("codes", torch.zeros(weight.shape[0], width, dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(()))

    def dequantize(self) -> Tensor:
        digits = self.codes[..., None].int() // 3 ** torch.arange(5) % 3
        return (digits.flatten(-2)[:, : self.in_features].float() - 1) * self.scale

    def fill(self, weight: Tensor) -> TernaryLinear:
        self.scale.copy_(weight.abs().mean())
        digits = (weight / self.scale).round().clamp(-1, 1).int() + 1
        digits = torch.nn.functional.pad(digits, (0, -digits.shape[1] % 5)).unflatten(1, (-1, 5))
        self.codes.copy_((digits * 3 ** torch.arange(5)).sum(-1))
        return self


class Ternary(Int8):
    """A correct quantizer of few bits, as BitNet b1.58 rounds (arXiv:2402.17764, eqs. 1 to 3)."""

    name = "ternary"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        return TernaryLinear(layer).fill(weight_matrix(layer))

    def empty(self, model: nn.Module) -> nn.Module:
        return self.swap(model, lambda name, layer: TernaryLinear(layer))

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return (8 * -(-in_features // 5) * out_features + 32) / (in_features * out_features)


class Flipped(Ternary):
    """Of few bits and wrong: the rows' codes in another order."""

    name = "flipped"

    def layer(self, name: str, layer: nn.Module) -> PackedLinear:
        packed = TernaryLinear(layer).fill(weight_matrix(layer))
        packed.codes.copy_(packed.codes.flip(0))
        return packed


TESTS = [value for name, value in vars(suite).items() if name.startswith("test_")]


@pytest.mark.parametrize("correct", [Int8, Ternary])
@pytest.mark.parametrize("test", TESTS, ids=lambda t: t.__name__)
def test_a_correct_quantizer_passes(test: Callable[[Any], None], correct: type[Quantizer]) -> None:
    test(correct)


def test_the_limits_are_those_of_the_best_scalar_quantizers() -> None:
    """Of the sign of normal weights, 1 - 2 / pi; of many, pi sqrt(3) / 2 N^-2 (Panter and Dite 1951)."""
    assert suite.least_error(1) == pytest.approx(1 - 2 / math.pi, abs=1e-4)
    assert suite.least_error(10) == pytest.approx(math.pi * 3**0.5 / 2 * 4.0**-10, rel=0.1)


def test_bits_other_than_stated_are_named() -> None:
    with told(r"stores 8\.\d+ bits a weight, and bits_per_weight states 4\.000"):
        suite.test_it_stores_the_bits_it_states(Boastful)
    with told("bits, and bits_per_weight states"):
        suite.test_the_file_is_as_large_as_the_formula_says(Boastful)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Boastful, suite.test_it_stores_the_bits_it_states),
        (Boastful, suite.test_the_file_is_as_large_as_the_formula_says),
        (Fake, suite.test_a_stored_model_comes_back_bit_for_bit),
        (Random, suite.test_it_is_deterministic),
        (Flipped, suite.test_the_weights_are_as_close_as_its_bits_allow),
        (Careless, suite.test_the_weights_are_as_close_as_its_bits_allow),
        (Lazy, suite.test_every_linear_layer_is_packed_and_nothing_else_changes),
        (Unbiased, suite.test_a_layer_keeps_its_bias),
        (Opaque, suite.test_gradients_pass_through_to_what_lies_below),
        (Inconsistent, suite.test_the_forward_pass_uses_the_stored_weight),
    ],
)
def test_the_suite_catches_it(broken: type[Quantizer], test: Callable[[Any], None]) -> None:
    with pytest.raises((AssertionError, AttributeError, RuntimeError)):
        test(broken)
