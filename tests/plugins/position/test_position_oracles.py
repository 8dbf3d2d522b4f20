"""Position methods against transformers' tensors and the papers' formulas."""

import math

import pytest
import torch
from composed import SPEC, choose, tiny

from harness import ConfigError


def _position(name, *, spec=SPEC, bidirectional=False, **options):
    choice = choose("position", name, **options)
    return choice.method(choice.config, spec, bidirectional=bidirectional)


@pytest.mark.parametrize("num_heads", [1, 2, 4, 6, 8, 12, 16])
def test_alibi_equals_bloom_and_mpt(num_heads):
    from dataclasses import replace

    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    alibi = _position("alibi", spec=replace(SPEC, num_heads=num_heads))
    bloom = build_alibi_tensor(torch.ones(1, 10), num_heads, torch.float32).view(num_heads, 10)
    h, k = torch.arange(num_heads)[:, None], torch.arange(10)[None]
    # BLOOM adds m k, which differs from -m (q - k) by a constant of the row.
    torch.testing.assert_close(
        alibi.bias(h, torch.tensor(9), k) - alibi.bias(h, torch.tensor(9), k[:, :1]), bloom
    )
    if num_heads & (num_heads - 1) == 0:  # MPT orders the extra slopes otherwise
        mpt = build_mpt_alibi_tensor(num_heads, 10).view(num_heads, 10)
        torch.testing.assert_close(alibi.bias(h, torch.tensor(9), k), mpt)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_t5_buckets_equal_transformers(bidirectional, num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    ours = _position(
        "relative_t5", bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    distance = torch.arange(-400, 401)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional, num_buckets, max_distance)
    assert torch.equal(ours.bucket(distance), theirs)


def test_rope_scores_depend_on_the_distance_and_equal_the_paper():
    """Su et al., eq. 34 in complex form: multiply component pairs by exp(i m theta)."""
    rope = _position("rope", base=100.0)
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).double()
    at = torch.tensor([[13]])
    theta = 100.0 ** (-2 * torch.arange(4).double() / 8)
    pairs = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * 13 * theta)
    wanted = torch.cat((pairs.real, pairs.imag), -1)
    torch.testing.assert_close(rope.rotate(x, at, is_key=False), wanted, rtol=1e-6, atol=1e-6)
    key = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(1)).double()

    def score(q, k):
        return (
            rope.rotate(x, torch.tensor([[q]]), is_key=False)
            * rope.rotate(key, torch.tensor([[k]]), is_key=True)
        ).sum()

    torch.testing.assert_close(score(5, 2), score(105, 102), rtol=1e-5, atol=1e-6)


def test_rope_frequencies_equal_transformers():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=64, num_attention_heads=8, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    theirs, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    assert torch.equal(_position("rope", base=5e5).inv_freq, theirs)
    assert factor == 1


def test_xpos_equals_its_formula():
    """Sun et al., algorithm 1: q zeta^(n/s) exp(i n theta), k zeta^(-n/s) exp(i n theta)."""
    xpos = _position("xpos", gamma=0.4, scale_base=16.0)
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).double()
    i = torch.arange(4).double()
    zeta, theta = (i / 4 + 0.4) / 1.4, 10000.0 ** (-2 * i / 8)
    for is_key, sign in ((False, 1), (True, -1)):
        pairs = torch.complex(x[..., :4], x[..., 4:]) * zeta ** (sign * 13 / 16) * torch.exp(1j * 13 * theta)
        wanted = torch.cat((pairs.real, pairs.imag), -1)
        found = xpos.rotate(x, torch.tensor([[13]]), is_key=is_key)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_sinusoidal_equals_its_formula():
    x = torch.randn(1, 3, 32).double()
    found = _position("sinusoidal").embed(x, torch.tensor([[0, 5, 100]]))
    for t, at in enumerate((0, 5, 100)):
        for j in range(16):
            angle = at / 10000 ** (2 * j / 32)
            assert found[0, t, 2 * j].item() == pytest.approx(
                math.sqrt(32) * x[0, t, 2 * j].item() + math.sin(angle)
            )
            assert found[0, t, 2 * j + 1].item() == pytest.approx(
                math.sqrt(32) * x[0, t, 2 * j + 1].item() + math.cos(angle)
            )


@torch.no_grad()
def test_a_learned_table_is_added_and_has_an_end():
    learned, x = _position("learned"), torch.zeros(1, 2, 32)
    assert torch.equal(learned.embed(x, torch.tensor([[3, 7]]))[0], learned.table.weight[[3, 7]])
    with pytest.raises(ConfigError, match="position=learned holds 64 positions, but 65 tokens were given"):
        tiny(position="learned")(torch.zeros(1, 65, dtype=torch.long))


@torch.no_grad()
def test_without_positions_the_first_layer_cannot_tell_order():
    """The last token reads a set: permuting what came before leaves a one-layer model's answer."""
    ids, shape = torch.arange(10)[None], {"num_layers": 1}
    mixed = ids[:, [4, 2, 0, 1, 3, 8, 6, 5, 7, 9]]
    nope = tiny(position="nope", shape=shape)
    torch.testing.assert_close(nope(ids).logits[:, -1], nope(mixed).logits[:, -1], rtol=1e-4, atol=1e-5)
    rope = tiny(position="rope", shape=shape)
    assert not torch.allclose(rope(ids).logits[:, -1], rope(mixed).logits[:, -1], atol=1e-3)


@pytest.mark.parametrize("name", ["rope", "xpos"])
def test_an_odd_head_size_is_refused(name):
    with pytest.raises(ConfigError, match=f"position={name} rotates pairs.*make it even"):
        tiny(position=name, shape={"head_dim": 7})
