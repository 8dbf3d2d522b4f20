"""Round to nearest: packing, the formula, and what is refused."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._uniform import make_grid
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


def test_the_survey_formula() -> None:
    config = tiny.choose("quantizer", "rtn", bits=4, symmetric=False, granularity="tensor").config
    weight = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    grid = make_grid(weight, config)
    scale, zero = float(grid.scale), float(-grid.zero)  # the survey's Z is what is stored, negated
    assert scale == pytest.approx(3 / 15, rel=1e-3)
    assert grid.codes(weight)[0].tolist() == [round(x / scale) - zero for x in (-1.0, 0.0, 0.5, 2.0)]


@pytest.mark.parametrize(("bits", "stored"), [(8, 8.25), (4, 4.25), (3, 3.25), (2, 2.25)])
def test_bits_per_weight_of_groups_of_64(bits: int, stored: float) -> None:
    method = tiny.choose("quantizer", "rtn", bits=bits, granularity="group", group_size=64).build()
    assert method.bits_per_weight(4096, 4096) == stored


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
