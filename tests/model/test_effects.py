"""Effect proofs of the model axes: the kernel that ran, the cache that was kept, what a pass went through."""

import pytest
from composed import SPEC, choose, tiny

from harness.model.effects import model_effects


@pytest.mark.parametrize(
    ("name", "options", "kernel", "cached"),
    [
        ("full", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 4 * 8 * 4),
        ("flash", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 4 * 8 * 4),
        ("multi_query", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 1 * 8 * 4),
        ("multi_head_latent", {"latent_dim": 6, "rope_dim": 2}, "scaled_dot_product", 2 * (6 + 2) * 4),
        ("retention", {}, None, 2 * 4 * 8 * 8 * 4 / 16),
    ],
)
def test_kernels_and_cache_are_measured(name, options, kernel, cached):
    choice = choose("attention", name, **options)
    (found,) = model_effects(tiny(attention=(name, options)), {"attention": choice}).values()
    assert any(kernel in ran for ran in found["kernels"]) if kernel else not found["kernels"]
    assert found["cache_bytes_per_token"] == cached


def effect(axis, name, *, shape=None, length=8, **others):
    """What a model of this choice leaves under it."""
    (found,) = model_effects(
        tiny(shape=shape, **{axis: name}, **others), {axis: choose(axis, name)}, length=length
    ).values()
    return found


@pytest.mark.parametrize(
    ("name", "calls"),
    [("pre", 2 * SPEC.num_layers + 1), ("post", 2 * SPEC.num_layers), ("sandwich", 4 * SPEC.num_layers + 1)],
)
def test_norms_are_counted_as_a_pass_meets_them(name, calls):
    assert effect("norm_position", name) == {"norms_per_pass": calls}


@pytest.mark.parametrize(("name", "matrices"), [("swiglu", 3), ("relu", 2)])
def test_weights_of_feed_forward_layers_and_norms_are_counted(name, matrices):
    found = effect("feed_forward", name, shape={"ffn_dim": 48})
    assert found["weights"] == SPEC.num_layers * matrices * SPEC.dim * 48
    assert effect("norm", "rmsnorm")["weights"] == (2 * SPEC.num_layers + 1) * SPEC.dim
    assert effect("norm", "layernorm")["modules"] == ["LayerNorm"]


def test_only_a_scheme_with_positions_tells_an_order_in_one_layer():
    one = {"num_layers": 1}
    assert effect("position", "nope", shape=one)["order_moves_logits"] < 1e-5
    assert effect("position", "rope", shape=one)["order_moves_logits"] > 1e-4


def test_an_encoder_is_counted_and_no_decoder_reads_ahead():
    assert effect("architecture", "causal_decoder") == {"encoder_weights": 0, "reads_ahead": False}
    found = effect("architecture", "encoder_decoder", shape={"num_encoder_layers": 1})
    assert found["encoder_weights"] > 4 * SPEC.dim**2


@pytest.mark.parametrize("axis", ["position", "norm", "norm_position", "feed_forward", "architecture"])
def test_a_model_measured_learns_on_as_it_was(axis):
    model = tiny().train()
    choice = choose(axis, None)
    (name,) = model_effects(model, {axis: choice}, length=4)
    assert name == f"{axis}={choice.method.name}"
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
