"""FP8 linear layers: rounding and gradients."""

from __future__ import annotations

import torch
from harness_plugins.precision.fp8 import linear, rounded
from torch.nn import functional as F


def test_rounding_is_within_half_a_step_of_e4m3() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    codes, scale = rounded(values, torch.float8_e4m3fn)
    back = codes.float() * scale
    large = values.abs() > scale * 2**-6
    assert ((back - values).abs() / values.abs())[large].max() <= 2**-4 + 1e-6


def test_outputs_and_gradients_are_near_the_exact_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 32, generator=generator, requires_grad=True)
    weight = torch.randn(16, 32, generator=generator, requires_grad=True)
    bias = torch.randn(16, generator=generator, requires_grad=True)
    found, exact = linear(x, weight, bias), F.linear(x, weight, bias)
    assert (found - exact).norm() / exact.norm() < 0.06
    for mine, theirs in zip(
        torch.autograd.grad(found.float().square().sum(), (x, weight, bias)),
        torch.autograd.grad(exact.square().sum(), (x, weight, bias)),
        strict=True,
    ):
        assert (mine - theirs).norm() / theirs.norm() < 0.12


def test_an_expert_without_a_token_gives_none_and_learns_nothing() -> None:
    x = torch.zeros(0, 32, requires_grad=True)
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = linear(x, weight)
    assert found.shape == (0, 16)
    to_x, to_weight = torch.autograd.grad(found.float().sum(), (x, weight))
    assert to_x.shape == (0, 32)
    assert not to_weight.any()
