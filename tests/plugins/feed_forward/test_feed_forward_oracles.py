"""Feed-forward layers against formulas and transformers' layers."""

import math

import pytest
import torch
from composed import SPEC, choose

from harness import ConfigError


def _layer(name, **options):
    torch.manual_seed(0)
    return choose("feed_forward", name, **options).build(SPEC, 0).double()


def _gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


ACTIVATIONS = {
    "relu": lambda x: x.clamp_min(0),
    "squared_relu": lambda x: x * x * (x > 0),
    "gelu": _gelu,
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "swiglu": lambda x: x / (1 + torch.exp(-x)),
    "geglu": _gelu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_layers_equal_the_survey_table(name):
    layer, x = _layer(name), torch.randn(2, 5, 32, dtype=torch.float64)
    up, act = x @ layer.up_proj.weight.T, ACTIVATIONS[name]
    hidden = act(x @ layer.gate_proj.weight.T) * up if name.endswith("glu") else act(up)
    torch.testing.assert_close(layer(x), hidden @ layer.down_proj.weight.T)


@pytest.mark.parametrize("name", ["gelu", "geglu"])
def test_the_tanh_form_equals_transformers(name):
    from transformers.activations import ACT2FN

    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    torch.testing.assert_close(_layer(name, tanh=True).activation(x), ACT2FN["gelu_new"](x))


def test_squared_relu_equals_transformers():
    from transformers.activations import ACT2FN

    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    torch.testing.assert_close(_layer("squared_relu").activation(x), ACT2FN["relu2"](x))


@torch.no_grad()
def test_a_switch_layer_equals_transformers():
    """SwitchTransformersSparseMLP with copied weights and room for every token."""
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersSparseMLP,
    )

    config = SwitchTransformersConfig(
        d_model=32, d_ff=48, num_experts=4, expert_capacity=1000, dropout_rate=0.0, router_jitter_noise=0.0
    )
    theirs, ours = SwitchTransformersSparseMLP(config).eval(), _layer("moe_switch").float().eval()
    state = theirs.state_dict()
    for name, value in state.items():
        value.normal_()
        if "classifier" in name:
            ours.router.weight.copy_(value)
    for i, expert in enumerate(ours.experts):
        found = {k: v for k, v in state.items() if f"expert_{i}." in k}
        expert.up_proj.weight.copy_(next(v for k, v in found.items() if "wi" in k))
        expert.down_proj.weight.copy_(next(v for k, v in found.items() if "wo" in k))
    x = torch.randn(2, 9, 32)
    found = theirs(x)
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(ours(x), found, rtol=1e-4, atol=1e-4)


def test_the_balance_term_is_one_when_balanced_and_e_when_collapsed():
    layer = _layer("moe_switch")
    even = torch.eye(4, dtype=torch.float64).repeat(8, 1)
    alike = torch.full((32, 4), 0.25).double()
    assert layer.balance(alike, even.argmax(1)[:, None]).item() == pytest.approx(1)
    collapsed = torch.tensor([[1.0, 0, 0, 0]]).double().repeat(32, 1)
    assert layer.balance(collapsed, collapsed.argmax(1)[:, None]).item() == pytest.approx(4)
    layer.train()
    layer(torch.randn(2, 8, 32, dtype=torch.float64))
    (term,) = layer.loss_terms({}, {})
    assert term.value.requires_grad


def test_tokens_beyond_an_experts_capacity_pass_by_in_training():
    layer = _layer("moe_switch", capacity_factor=1.0).train()
    x = torch.randn(1, 1, 32, dtype=torch.float64).expand(1, 8, 32)
    out = layer(x)
    assert (out[0, :2] != 0).any(-1).all()
    assert (out[0, 2:] == 0).all()


def test_one_expert_is_refused():
    with pytest.raises(ConfigError, match="num_experts=1 must lie between 2 and 4096"):
        _layer("moe_switch", num_experts=1)
