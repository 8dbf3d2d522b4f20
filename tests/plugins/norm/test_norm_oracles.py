"""Norms against torch.nn and the formulas of the papers."""

import dataclasses

import pytest
import torch
from composed import SPEC, choose, tiny

from harness import ConfigError


def _x():
    return torch.randn(3, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1


def _random_affine(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return module.double()


@pytest.mark.parametrize("name", ["layernorm", "deepnorm"])
def test_layernorm_equals_its_formula(name):
    spec = dataclasses.replace(SPEC, bias=True)
    norm, x = _random_affine(choose("norm", name).build().build(32, spec)), _x()
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    wanted = (x - mean) / (var + spec.norm_eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), wanted)
    assert isinstance(norm, torch.nn.LayerNorm)


def test_rmsnorm_equals_its_formula():
    norm, x = _random_affine(choose("norm", "rmsnorm").build().build(32, SPEC)), _x()
    wanted = x / (x.square().mean(-1, keepdim=True) + SPEC.norm_eps).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted)


@pytest.mark.parametrize("bias", [False, True])
def test_dynamic_tanh_equals_its_formula(bias):
    """Zhu et al. 2025: tanh written out as a quotient of exponentials."""
    built = choose("norm", "dynamic_tanh", alpha=0.8).build().build(32, dataclasses.replace(SPEC, bias=bias))
    assert (built.alpha.item(), built.weight.unique().item()) == (pytest.approx(0.8), 1)
    norm, x = _random_affine(built), _x()
    up, down = torch.exp(norm.alpha * x), torch.exp(-norm.alpha * x)
    wanted = norm.weight * (up - down) / (up + down) + (norm.bias if bias else 0)
    torch.testing.assert_close(norm(x), wanted)
    assert (norm.bias is not None) is bias


def test_dynamic_tanh_stands_where_norms_stand():
    model = tiny(norm=("dynamic_tanh", {"alpha": 0.3}))
    alphas = [p for name, p in model.named_parameters() if name.endswith(".alpha")]
    assert [p.item() for p in alphas] == [pytest.approx(0.3)] * (2 * SPEC.num_layers + 1)


def test_dynamic_tanh_refuses_a_slope_that_is_not_positive():
    with pytest.raises(ConfigError, match=r"norm.alpha=0.0 must be positive"):
        choose("norm", "dynamic_tanh", alpha=0.0)


@pytest.mark.parametrize("depth", [2, 12, 100])
def test_deepnorm_scales_equal_the_paper(depth):
    """Wang et al. 2022, figure 2: decoder-only, M layers; encoder-decoder, N and M layers."""
    method = choose("norm", "deepnorm").method
    spec = method.modify_spec(None, dataclasses.replace(SPEC, num_layers=depth))
    assert spec.residual_scale == pytest.approx((2 * depth) ** 0.25)
    assert spec.init_gain == pytest.approx((8 * depth) ** -0.25)
    both = method.modify_spec(None, dataclasses.replace(SPEC, num_layers=depth, num_encoder_layers=6))
    assert both.residual_scale == pytest.approx((3 * depth) ** 0.25)
    assert both.init_gain == pytest.approx((12 * depth) ** -0.25)
    assert both.encoder_residual_scale == pytest.approx(0.81 * (6**4 * depth) ** 0.0625)
    assert both.encoder_init_gain == pytest.approx(0.87 * (6**4 * depth) ** -0.0625)


def test_deepnorm_reaches_residuals_and_initial_weights():
    model = tiny(norm="deepnorm", norm_position="post", shape={"dim": 128, "ffn_dim": 512, "num_layers": 8})
    block = model.model.layers[3]
    assert block.residual_scale == pytest.approx(2.0)
    plain = block.self_attn.q_proj.weight.std().item()
    for module in (block.self_attn.v_proj, block.self_attn.o_proj, block.mlp.up_proj, block.mlp.down_proj):
        assert module.weight.std().item() / plain == pytest.approx(64**-0.25, rel=0.05)
    assert block.self_attn.k_proj.weight.std().item() / plain == pytest.approx(1, rel=0.05)
