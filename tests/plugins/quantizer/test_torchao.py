"""The torchao adapter gives what torchao gives, in the bits it states."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import nn

from harness import ConfigError


def layers(**options: Any) -> tuple[Any, nn.Linear]:
    """A packed layer of ours, and the layer as torchao leaves it."""
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerAxis, PerGroup

    torch.manual_seed(0)
    theirs = nn.Linear(128, 48)
    method = tiny.choose("quantizer", "torchao", **options).build()
    plain = nn.Linear(128, 48)
    plain.load_state_dict(theirs.state_dict())
    ours = method.quantize(nn.Sequential(plain), None)[0]
    if options.get("mode") == "dynamic":
        quantize_(theirs, Int8DynamicActivationInt8WeightConfig(version=2))
    else:
        size, bits = options.get("group_size"), options.get("bits", 8)
        granularity = PerAxis(0) if size is None else PerGroup(size)
        quantize_(
            theirs, IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
        )
    return ours, theirs


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 32])
def test_weights_and_products_are_those_of_torchao(bits: int, group_size: int | None) -> None:
    ours, theirs = layers(bits=bits, group_size=group_size)
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.dequantize(), theirs.weight.dequantize())
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    stated = tiny.choose("quantizer", "torchao", bits=bits, group_size=group_size).build()
    assert ours.stored_bits() / ours.num_weights() == pytest.approx(stated.bits_per_weight(128, 48), rel=0.01)


def test_eight_bit_inputs_are_multiplied_by_torchao() -> None:
    ours, theirs = layers(mode="dynamic")
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        exact = nn.functional.linear(x, ours.dequantize(), ours.bias)
        assert 0 < (ours(x) - exact).norm() < 0.02 * exact.norm()
    x.requires_grad_()
    ours(x).sum().backward()
    assert torch.allclose(x.grad, ours.dequantize().sum(0).expand_as(x), atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits=1 must be between 2 and 8"),
        ({"group_size": 0}, "must be at least 1, or null for all inputs"),
        ({"mode": "dynamic", "bits": 4}, "takes bits=8"),
    ],
)
def test_what_torchao_does_not_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.choose("quantizer", "torchao", **options)


def test_groups_must_divide() -> None:
    method = tiny.choose("quantizer", "torchao", bits=4, group_size=48).build()
    with pytest.raises(ConfigError, match="group_size=48 must divide its 32 inputs"):
        method.quantize(tiny.llama(), None)
