"""Transformer-XL's relative positions against its equation written out, and against transformers' XLNet."""

from types import SimpleNamespace

import pytest
import torch
from composed import SPEC, attention_layer, causal_view, choose, tiny
from harness_plugins.position.relative_xl import RelativeXl

from harness import ConfigError, IncompatibleError, Kernel
from harness.conformance.test_position import (
    test_cached_decoding_equals_the_full_forward as decoding_equals_the_full_forward,
)

LENGTH = 9


def _position(kind=RelativeXl, **shape):
    """The scheme in float64, u and v moved away from zero."""
    import dataclasses

    torch.manual_seed(1)
    position = kind(kind.Config(), dataclasses.replace(SPEC, **shape)).double()
    for bias in (position.content_bias, position.position_bias):
        torch.nn.init.normal_(bias, std=0.5)
    return position


def _x():
    return torch.randn(2, LENGTH, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _equation_5(layer, position, x):
    """A_ij = (W_q x_i)(W_kE x_j) + (W_q x_i)(W_kR R_(i-j)) + u (W_kE x_j) + v (W_kR R_(i-j)), in loops."""
    heads, width = 4, 8
    w_q, w_k, w_v = (getattr(layer, f"{name}_proj").weight.view(heads, width, 32) for name in "qkv")
    w_r = position.projections[layer.layer].weight.view(heads, width, 32)
    u, v = position.content_bias.view(heads, width), position.position_bias.view(heads, width)
    mixed = torch.zeros(2, LENGTH, heads, width, dtype=torch.float64)
    for b, n, i in torch.cartesian_prod(torch.arange(2), torch.arange(heads), torch.arange(LENGTH)).tolist():
        scores = []
        for j in range(i + 1):
            at = (i - j) / 10000 ** (2 * torch.arange(16, dtype=torch.float64) / 32)
            r = torch.cat((at.sin(), at.cos()))
            query, key, far = w_q[n] @ x[b, i], w_k[n] @ x[b, j], w_r[n] @ r
            scores.append((query @ key + query @ far + u[n] @ key + v[n] @ far) / width**0.5)
        weights = torch.stack(scores).softmax(0)
        mixed[b, i, n] = sum(weights[j] * (w_v[n] @ x[b, j]) for j in range(i + 1))
    return mixed.flatten(2) @ layer.o_proj.weight.T


@torch.no_grad()
def test_it_equals_equation_5():
    layer, position, x = attention_layer("full"), _position(), _x()
    found = layer(x, causal_view(LENGTH), position=position)
    torch.testing.assert_close(found, _equation_5(layer, position, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("past", [0, 4])
@torch.no_grad()
def test_it_equals_xlnet(past):
    """XLNet's memory holds what came before; a cache of keys here."""
    from transformers import XLNetConfig
    from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

    layer, position, x = attention_layer("full"), _position(), _x()
    config = XLNetConfig(d_model=32, n_head=4, d_inner=8, n_layer=1, vocab_size=8, attn_type="uni")
    theirs = XLNetRelativeAttention(config).double().eval()
    for name, weight in (
        *((name, getattr(layer, f"{name}_proj").weight) for name in "qkv"),
        ("r", position.projections[0].weight),
    ):
        getattr(theirs, name).copy_(weight.view(4, 8, 32).permute(2, 0, 1))
    theirs.o.copy_(layer.o_proj.weight.view(32, 4, 8))
    theirs.r_w_bias.copy_(position.content_bias.view(4, 8))
    theirs.r_r_bias.copy_(position.position_bias.view(4, 8))
    theirs.layer_norm = torch.nn.Identity()
    new = LENGTH - past
    r = XLNetModel(config).relative_positional_encoding(new, LENGTH).double()
    hidden = torch.triu(torch.ones(new, LENGTH, dtype=torch.float64), diagonal=past + 1)[..., None, None]
    tokens = x.transpose(0, 1)
    out, _ = theirs(tokens[past:], None, hidden, None, r, None, mems=tokens[:past] if past else None)
    wanted = out.transpose(0, 1) - x[:, past:]  # without their residual
    found = layer(x, causal_view(LENGTH), position=position)[:, past:]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


class ShiftedDistances(RelativeXl):
    """Planted: the key before is at distance 0."""

    def sinusoid(self, distances, dtype):
        return super().sinusoid(distances - 1, dtype)


class ForgottenBias(RelativeXl):
    """Planted: u stands where v should."""

    def query_bias(self, layer, q, view):
        return super().query_bias(layer, q - self._heads(self.position_bias - self.content_bias), view)


class CountedFromTheChunk(RelativeXl):
    """Planted: distances ignore what the cache holds."""

    def query_bias(self, layer, q, view):
        import dataclasses

        near = dataclasses.replace(view, query_position_BT=view.query_position_BT - view.past, memo=None)
        return super().query_bias(layer, q, near)


@pytest.mark.parametrize("broken", [ShiftedDistances, ForgottenBias])
@torch.no_grad()
def test_the_oracle_finds_planted_bugs(broken):
    layer, x = attention_layer("full"), _x()
    found = layer(x, causal_view(LENGTH), position=_position(broken))
    assert not torch.allclose(found, _equation_5(layer, _position(), x), rtol=1e-3)


def test_the_suite_finds_a_cache_that_is_not_counted():
    with pytest.raises(AssertionError):
        decoding_equals_the_full_forward(CountedFromTheChunk)


@torch.no_grad()
def test_every_part_of_it_moves_the_scores():
    """Without W_R the scheme knows no order; u and v change what is read."""
    layer, x = attention_layer("full"), _x()
    mixed = x[:, [4, 2, 0, 1, 3, 7, 6, 5, 8]]

    def last(position, x=x):
        return layer(x, causal_view(LENGTH), position=position)[:, -1]

    whole = last(_position())
    assert not torch.allclose(whole, last(_position(), mixed), atol=1e-3)
    for name in ("content_bias", "position_bias"):
        position = _position()
        getattr(position, name).zero_()
        assert not torch.allclose(whole, last(position), atol=1e-3), name
    position = _position()
    position.projections[0].weight.zero_()
    torch.testing.assert_close(last(position), last(position, mixed))


@pytest.mark.parametrize(
    "attention",
    [
        ("grouped_query", {"num_kv_heads": 2}),
        ("sliding_window", {"window": 5}),
        ("sparse_factorized", {"stride": 4, "summary": 1}),
        "paged",
    ],
)
@torch.no_grad()
def test_every_attention_with_scores_takes_it_and_its_cache_does_too(attention):
    model, ids = tiny(attention=attention, position="relative_xl"), torch.arange(20)[None]
    whole = model(ids).logits
    part = model(ids[:, :12], use_cache=True)
    rest = model(ids[:, 12:], past_key_values=part.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat((part.logits, rest.logits), 1), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_step_takes_sines_of_its_keys_once_for_all_layers(monkeypatch):
    model, counted = tiny(position="relative_xl", shape={"num_layers": 3}), []
    angles = RelativeXl._angles
    monkeypatch.setattr(RelativeXl, "_angles", lambda *given: counted.append(1) or angles(*given))
    part = model(torch.arange(12)[None], use_cache=True)
    model(torch.arange(1)[None], past_key_values=part.past_key_values, use_cache=True)
    assert counted == [1]


@torch.no_grad()
def test_an_encoder_tells_the_future_from_the_past():
    """Distances are signed where keys may lie ahead, and each stack has as many projections as layers."""
    model = tiny(
        architecture="encoder_decoder",
        position="relative_xl",
        shape={"num_encoder_layers": 1, "num_layers": 2},
    )
    stacks = (model.model.encoder, model.model)
    assert [len(stack.position.projections) for stack in stacks] == [1, 2]
    ids = torch.arange(10)[None]
    assert not torch.allclose(model.model.encode(ids, None).flip(1), model.model.encode(ids.flip(1), None))


def test_what_cannot_take_it_is_refused():
    with pytest.raises(ConfigError, match=r"relative_xl reads whole heads of 8.*leaves 4 components"):
        tiny(attention=("multi_head_latent", {"rope_dim": 4}), position="relative_xl")
    with pytest.raises(ConfigError, match=r"model.dim=33 is odd"):
        tiny(position="relative_xl", shape={"dim": 33})
    with pytest.raises(IncompatibleError, match="flex takes no term that depends on the query"):
        tiny(attention=("full", {"kernel": Kernel.flex}), position="relative_xl")(torch.arange(4)[None])
    with pytest.raises(ConfigError, match="no scores"):
        tiny(attention="linear", position="relative_xl")
    evaluated = SimpleNamespace(stages=("evaluate",), device="cpu", reads=lambda stage: (), spec=lambda: None)
    problems = {}
    for kernel in (Kernel.flash, Kernel.flex, Kernel.auto):
        model = tiny(attention=("full", {"kernel": kernel}), position="relative_xl")
        choice = choose("attention", "full", kernel=kernel)
        problems[kernel] = [p.message for p in choice.method.check(choice.config, evaluated, model)]
    assert "learned score bias" in problems[Kernel.flash][0]
    assert "depends on the query" in problems[Kernel.flex][0]
    assert problems[Kernel.auto] == []


@pytest.mark.parametrize("position", ["relative_t5", "relative_xl"])
def test_its_weights_are_not_split_over_processes(position):
    from harness_plugins.parallelism._mesh import Part
    from harness_plugins.parallelism._split import split_layers

    model = tiny(position=position, shape={"tie_embeddings": False})
    with pytest.raises(
        IncompatibleError, match="has weights, which the processes of a pipeline do not share"
    ):
        Part(model, 0, 2)
    with pytest.raises(IncompatibleError, match="do not follow split heads"):
        split_layers(model, None, 2)
