"""Round to nearest: packing, the formula, and what is refused."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._grid import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import ConfigError, pack_codes, packed_width, unpack_codes, unpack_levels
from harness.conformance.causal import causal_model


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 8), rows=st.integers(1, 4), width=st.integers(1, 70), seed=st.integers(0, 9))
def test_packing_is_lossless_and_as_wide_as_stated(bits: int, rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, width), generator=generator, dtype=torch.uint8)
    packed = pack_codes(codes, bits)
    assert packed.shape == (rows, packed_width(width, bits))
    assert torch.equal(unpack_codes(packed, bits, width), codes)
    levels = torch.randn(2**bits, generator=generator)
    assert torch.equal(unpack_levels(packed, bits, width, levels), levels[codes.long()])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_weight_is_within_half_a_step(bits: int, granularity: str, symmetric: bool) -> None:
    config = tiny.choose(
        "quantizer", "rtn", bits=bits, granularity=granularity, symmetric=symmetric, group_size=16
    ).config
    weight = torch.randn(24, 48, generator=torch.Generator().manual_seed(bits)) + 0.3
    grid = make_grid(weight, config)
    scale = grid.scale.expand(24, -1)
    step = scale.repeat_interleave(48 // scale.shape[1], dim=1)
    # Zero points are whole steps, so that an end of the range may lie half a step beyond the grid.
    slack = 0.501 if symmetric else 1.001
    assert ((grid.nearest(weight) - weight).abs() <= slack * step).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8, 1e6])
def test_rows_of_small_and_large_weights_keep_all_levels(bits: int, symmetric: bool, size: float) -> None:
    layer = torch.nn.Linear(1024, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = torch.linspace(-1, 0.9995, 1024)
        layer.weight[1] = layer.weight[0] * size
    method = tiny.choose("quantizer", "rtn", bits=bits, symmetric=symmetric).build()
    packed = method.quantize(torch.nn.Sequential(layer), None)[0]
    one, other = packed.dequantize()
    levels = [len(row.unique()) for row in (one, other)]
    assert min(levels) >= (2**bits if symmetric else 2**bits - 1)  # a zero point may lie half a step off
    assert (other - layer.weight[1]).abs().max() < 1.1 * size / (2**bits - 1)
    again = method.empty_layer(layer)
    again.load_state_dict(packed.state_dict())
    assert torch.equal(again.dequantize(), packed.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_symmetric_grid_is_that_of_auto_gptq(bits: int) -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(bits))
    grid = make_grid(weight, tiny.choose("quantizer", "rtn", bits=bits, symmetric=True).config)
    top = 2**bits - 1
    assert torch.allclose(grid.scale[:, 0], 2 * weight.abs().amax(1) / top, rtol=1e-3)
    assert (grid.zero == 2 ** (bits - 1)).all()
    assert grid.codes(weight).min() == 0
    assert grid.codes(weight).max() == top


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("name", ["rtn", "awq"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_stored_weight(
    bits: int, name: str, granularity: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(bits)
    layer = torch.nn.Linear(64, 48, bias=False)
    options = {"bits": bits, "granularity": granularity, "group_size": 32}
    method = tiny.choose("quantizer", name, **options).build()
    packed = method.empty_layer(layer)
    grid = make_grid(layer.weight.detach(), method.config)
    packed.fill(grid.codes(layer.weight.detach()), grid)
    if name == "awq":
        packed.input_scale.copy_(torch.rand(64, generator=generator) + 0.5)
    weight = packed.dequantize().double()
    for rows in (1, 5, 40):
        x = torch.randn(rows, 64, generator=generator).to(dtype)
        exact = x.double() @ weight.T
        plain = x @ weight.to(dtype).T
        error, allowed = float((packed(x) - exact).norm()), 2 * float((plain - exact).norm())
        assert error <= allowed, f"{rows} rows"


def test_the_survey_formula() -> None:
    config = tiny.choose("quantizer", "rtn", bits=4, symmetric=False, granularity="tensor").config
    weight = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    grid = make_grid(weight, config)
    scale, zero = float(grid.scale), float(-grid.zero)  # the survey's Z is what is stored, negated
    assert scale == pytest.approx(3 / 15, rel=1e-3)
    assert grid.codes(weight)[0].tolist() == [round(x / scale) - zero for x in (-1.0, 0.0, 0.5, 2.0)]


@pytest.mark.parametrize(("bits", "stored"), [(8, 8.25), (4, 4.25), (3, 3.25), (2, 2.25)])
def test_bits_per_weight_of_groups_of_64(bits: int, stored: float) -> None:
    options = {"bits": bits, "granularity": "group", "group_size": 64}
    symmetric = tiny.choose("quantizer", "rtn", symmetric=True, **options).build()
    assert symmetric.bits_per_weight(4096, 4096) == stored
    with_zeros = tiny.choose("quantizer", "rtn", **options).build()
    assert with_zeros.bits_per_weight(4096, 4096) == stored + 8 / 64


def test_a_group_size_that_does_not_divide_is_refused() -> None:
    method = tiny.choose("quantizer", "rtn", granularity="group", group_size=48).build()
    with pytest.raises(ConfigError, match=r"group_size=48 must divide its 32 inputs; use one of \[16, 32\]"):
        method.quantize(causal_model(), None)
    problems = list(type(method).check(method.config, None, causal_model()))  # type: ignore[arg-type]
    assert problems
    assert "must divide" in str(problems[0])


@pytest.mark.parametrize("bits", [1, 9])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match="must be between 2 and 8"):
        tiny.choose("quantizer", "rtn", bits=bits)


def test_gpt2_conv1d_layers_are_packed_too() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(10)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        tiny.choose("quantizer", "rtn", bits=8).build().quantize(model, None)
        after = model(input_ids=ids).logits
    assert type(model.transformer.h[0].attn.c_attn).__name__ == "UniformLinear"
    assert (after - before).norm() < 0.02 * before.norm()
