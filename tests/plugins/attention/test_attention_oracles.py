"""Attention against formulas written out, dense masks, other forms of itself, and transformers."""

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from composed import attention_layer, causal_view, choose, tiny

from harness import ConfigError, IncompatibleError, Kernel, PagedCache
from harness.model.views import view_of
from harness.ops.view import View, everything


def _x(length, *, rows=2, dim=32, seed=0):
    return torch.randn(rows, length, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _heads(layer, x):
    q, (k, v) = layer.project_queries(x), layer.project_keys(x)
    groups = layer.num_heads // layer.kv_heads
    return q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)


def _dense(layer, x, allowed):
    """softmax(q k / sqrt(H)) v written out, under a dense mask."""
    q, k, v = _heads(layer, x)
    scores = (q @ k.transpose(-1, -2)) * layer.spec.head_dim**-0.5
    mixed = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v
    return layer.o_proj(mixed.transpose(1, 2).flatten(2))


def _offsets(length):
    return torch.arange(length)[:, None], torch.arange(length)[None]


@pytest.mark.parametrize("name", ["full", "multi_query", "grouped_query", "flash", "paged"])
@torch.no_grad()
def test_softmax_attention_equals_the_formula(name):
    layer, x = attention_layer(name), _x(20)
    q, k = _offsets(20)
    torch.testing.assert_close(layer(x, causal_view(20)), _dense(layer, x, k <= q))


@torch.no_grad()
def test_grouped_query_with_all_heads_equals_full():
    full, grouped = attention_layer("full"), attention_layer("grouped_query", num_kv_heads=4)
    grouped.load_state_dict(full.state_dict())
    x = _x(20)
    torch.testing.assert_close(grouped(x, causal_view(20)), full(x, causal_view(20)))


@pytest.mark.parametrize(
    ("name", "options", "ratio"),
    [("grouped_query", {"num_kv_heads": 2}, 2), ("multi_query", {}, 4)],
)
@torch.no_grad()
def test_the_cache_shrinks_by_exactly_n_over_k(name, options, ratio):
    def size(model):
        cache = model(torch.arange(10)[None], use_cache=True).past_key_values
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    assert size(tiny()) == ratio * size(tiny(attention=(name, options)))


def test_heads_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(
        ConfigError, match=r"num_kv_heads=3 must divide model.num_heads=4; use one of \[1, 2, 4\]"
    ):
        attention_layer("grouped_query", num_kv_heads=3)


def _strided(q, k, stride):
    return (k <= q) & ((q - k < stride) | ((q - k) % stride == 0))


def _fixed(q, k, stride, summary):
    return (k <= q) & ((q // stride == k // stride) | (k % stride >= stride - summary))


@pytest.mark.parametrize("length", [7, 600, 1100])
@torch.no_grad()
def test_windows_and_factorized_patterns_equal_dense_masks(length):
    from harness_plugins.attention.sparse_factorized import Pattern

    x, (q, k) = _x(length, rows=1), _offsets(length)
    window = attention_layer("sliding_window", window=100)
    torch.testing.assert_close(window(x, causal_view(length)), _dense(window, x, (k <= q) & (q - k < 100)))
    strided = attention_layer("sparse_factorized", stride=24)
    torch.testing.assert_close(strided(x, causal_view(length)), _dense(strided, x, _strided(q, k, 24)))
    fixed = attention_layer("sparse_factorized", stride=24, summary=3, pattern=Pattern.fixed)
    torch.testing.assert_close(fixed(x, causal_view(length)), _dense(fixed, x, _fixed(q, k, 24, 3)))


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize("position", ["alibi", "relative_t5"])
@torch.no_grad()
def test_factorized_patterns_take_a_score_bias(pattern, position):
    """The direct form equals the masked form, which the math kernel forces."""
    from harness_plugins.attention.sparse_factorized import Pattern

    options = {"stride": 5, "summary": 2, "pattern": Pattern[pattern]}
    direct = tiny(attention=("sparse_factorized", options), position=position)
    masked = tiny(attention=("sparse_factorized", {**options, "kernel": Kernel.math}), position=position)
    ids = torch.arange(33)[None]
    torch.testing.assert_close(direct(ids).logits, masked(ids).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_window_of_the_whole_sequence_equals_full():
    full, window = attention_layer("full"), attention_layer("sliding_window", window=600)
    window.load_state_dict(full.state_dict())
    x = _x(600, rows=1)
    torch.testing.assert_close(window(x, causal_view(600)), full(x, causal_view(600)))


@pytest.mark.parametrize("kind", ["window", "strided", "fixed"])
def test_blocked_gradients_equal_dense_ones(kind):
    from harness_plugins.attention.sparse_factorized import Pattern

    length = 700
    q, k = _offsets(length)
    name, options, mask = {
        "window": ("sliding_window", {"window": 60}, (k <= q) & (q - k < 60)),
        "strided": ("sparse_factorized", {"stride": 60}, _strided(q, k, 60)),
        "fixed": (
            "sparse_factorized",
            {"stride": 60, "summary": 3, "pattern": Pattern.fixed},
            _fixed(q, k, 60, 3),
        ),
    }[kind]
    layer, grads = attention_layer(name, **options), []
    for run in (lambda x: layer(x, causal_view(length)), lambda x: _dense(layer, x, mask)):
        x = _x(length, rows=1).requires_grad_()
        run(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def _dispatched(layer, x):
    with torch.profiler.profile() as profile:
        layer(x, causal_view(x.shape[1], device=x.device))
    return {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key}


def _output_and_gradient(layer, x):
    """What a layer gives, and the gradient of its sum of squares; float64 on the CPU."""
    x = x.detach().to(next(layer.parameters()).device).requires_grad_()
    found = layer(x, causal_view(x.shape[1], device=x.device))
    (gradient,) = torch.autograd.grad(found.double().square().sum(), x)
    return found.detach().cpu().double(), gradient.cpu().double()


ON_CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("device", "suffix"), [("cpu", "_for_cpu"), pytest.param("cuda", "", marks=ON_CUDA)])
def test_flash_and_math_kernels_are_dispatched_and_err_alike(device, suffix, dtype):
    """Held to float64 on the same rounded weights; flash sums in another order: twice the other's error."""
    shape = {"dim": 64, "head_dim": 32}
    flash = attention_layer("flash", **shape).to(device, dtype)
    math = attention_layer("full", **shape, kernel=Kernel.math).to(device, dtype)
    exact = attention_layer("full", **shape)
    exact.load_state_dict(flash.state_dict())
    x = _x(300, dim=64).to(dtype)
    assert f"aten::_scaled_dot_product_flash_attention{suffix}" in _dispatched(flash, x.to(device))
    plain = _dispatched(math, x.to(device))
    assert "aten::_scaled_dot_product_attention_math" in plain
    assert not any("flash" in name for name in plain)
    expected = _output_and_gradient(exact, x.double())
    found = [_output_and_gradient(layer, x) for layer in (flash, math)]
    for true, ours, theirs in zip(expected, *found, strict=True):
        assert (ours - true).abs().max() <= 2 * (theirs - true).abs().max()


def test_flash_refuses_what_it_cannot_run():
    model = tiny(attention="flash", position="relative_t5")
    with pytest.raises(
        IncompatibleError, match=r"attention.kernel=flash cannot run here: .*use attention.kernel=auto"
    ):
        model(torch.arange(8)[None])
    with pytest.raises(ConfigError, match="contradicts attention=flash"):
        attention_layer("flash", kernel=Kernel.math)


@pytest.mark.parametrize("position", ["alibi"])
@torch.no_grad()
def test_flex_attention_equals_the_other_kernels(position):

    ids = torch.arange(40)[None] % 64
    documents = torch.tensor([[0] * 15 + [1] * 25])
    options = {"window": 6}
    auto = tiny(attention=("sliding_window", options), position=position)
    flex = tiny(attention=("sliding_window", {**options, "kernel": Kernel.flex}), position=position)
    torch.testing.assert_close(flex(ids).logits, auto(ids).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        flex(ids, document_ids=documents).logits,
        auto(ids, document_ids=documents).logits,
        rtol=1e-4,
        atol=1e-4,
    )


@torch.no_grad()
def test_flex_attention_skips_the_blocks_that_nobody_reads():
    layer, view = attention_layer("sliding_window", window=128, kernel=Kernel.flex), causal_view(1024)
    layer(_x(1024, rows=1), view)
    (block_mask,) = [made for key, made in view.memo.items() if key[0] == "flex"]
    # 8 x 8 blocks of 128: the diagonal and the one before it are read, 15 of 64.
    assert block_mask.sparsity() == pytest.approx(100 * (1 - 15 / 64), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "position", "documents"),
    [("sliding_window", {"window": 100}, None, False), ("grouped_query", {"num_kv_heads": 2}, "alibi", True)],
)
@torch.no_grad()
def test_compiled_flex_attention_equals_a_dense_mask(monkeypatch, name, options, position, documents):
    """The compiled kernel as CUDA runs it, here the CPU's: it reads only, and takes 20 s to compile."""
    from harness.ops import flex

    monkeypatch.setattr(flex, "flex_attention", flex._compiled())
    length, x = 300, _x(300, dim=64).float()
    layers = [
        attention_layer(name, dim=64, head_dim=16, **options, kernel=kernel).float()
        for kernel in (Kernel.math, Kernel.flex)
    ]
    chosen = None if position is None else choose("position", position)
    scheme = None if chosen is None else chosen.method(chosen.config, layers[0].spec)
    view = causal_view(length)
    if documents:
        view.document_BS = (torch.arange(length) // 120).repeat(2, 1)
    found = [layer(x, dataclasses.replace(view, memo={}), position=scheme) for layer in layers]
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("documents", [False, True])
def test_compiled_flex_attention_trains_as_the_other_kernels_do(documents):
    length, options = 512, {"window": 100}
    ids = torch.arange(length, device="cuda")[None] % 64
    inputs = {"document_ids": (torch.arange(length, device="cuda") // 200)[None]} if documents else {}
    found = []
    for kernel in (Kernel.auto, Kernel.flex):
        shape = {"max_length": length, "dim": 128, "head_dim": 32}
        model = tiny(attention=("sliding_window", {**options, "kernel": kernel}), shape=shape).cuda()
        logits = model(ids, **inputs).logits
        logits.square().mean().backward()
        found.append((logits.detach(), model.model.layers[0].self_attn.q_proj.weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_flex_attention_says_that_it_cannot_train_on_a_cpu():
    from harness.compose import compose
    from harness.plan.problems import problems

    (found,) = problems(compose(["attention.kernel=flex", "device=cpu"]))
    assert "the flex kernel cannot train on a CPU; use attention.kernel=auto" in str(found)
    assert not problems(compose(["attention.kernel=flex", "device=cuda"]))
    model = tiny(attention=("full", {"kernel": Kernel.flex}))
    with pytest.raises(IncompatibleError, match=r"cannot train on device cpu; use attention\.kernel=auto"):
        model(torch.arange(8)[None])


@torch.no_grad()
def test_linear_attention_equals_its_recurrence():
    """Katharopoulos et al., eq. 16 to 20: s and z grow token by token."""
    layer, x = attention_layer("linear"), _x(300)
    q, k, v = _heads(layer, x)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    s, z, out = torch.zeros(2, 4, 8, 8).double(), torch.zeros(2, 4, 8).double(), []
    for t in range(300):
        s = s + k[:, :, t, :, None] * v[:, :, t, None, :]
        z = z + k[:, :, t]
        top = torch.einsum("bnh,bnhe->bne", q[:, :, t], s)
        out.append(top / (q[:, :, t] * z).sum(-1, keepdim=True))
    wanted = layer.o_proj(torch.stack(out, 1).flatten(2))
    torch.testing.assert_close(layer(x, causal_view(300)), wanted)


@torch.no_grad()
def test_retention_equals_its_recurrence():
    """Sun et al., eq. 6: S_n = gamma S_(n-1) + K_n^T V_n, with gamma = 1 - 2^(-5-h)."""
    layer, x = attention_layer("retention"), _x(300)
    q, k, v = _heads(layer, x)
    gamma = (1 - 2.0 ** (-5 - torch.arange(4.0).double()))[:, None, None]
    s, out = torch.zeros(2, 4, 8, 8).double(), []
    for t in range(300):
        s = gamma * s + (k[:, :, t, :, None] * 8**-0.5) * v[:, :, t, None, :]
        out.append(torch.einsum("bnh,bnhe->bne", q[:, :, t], s))
    mixed = torch.stack(out, 1)
    mean, var = mixed.mean(-1, keepdim=True), mixed.var(-1, keepdim=True, unbiased=False)
    normed = ((mixed - mean) / (var + layer.spec.norm_eps).sqrt()).flatten(2)
    wanted = layer.o_proj(F.silu(layer.g_proj(x)) * normed)
    torch.testing.assert_close(layer(x, causal_view(300)), wanted, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_latent_attention_equals_deepseek():
    """One layer of transformers' DeepSeek-V2 with copied weights; its rotary pairs are interleaved."""
    from transformers import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import (
        DeepseekV2Attention,
        DeepseekV2RotaryEmbedding,
    )

    config = DeepseekV2Config(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=None,
        kv_lora_rank=12,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        attention_bias=False,
        attn_implementation="eager",
    )
    theirs = DeepseekV2Attention(config, 0).float().eval()
    ours = attention_layer("multi_head_latent", latent_dim=12, rope_dim=4).float()
    order = torch.tensor([0, 2, 1, 3])
    q = theirs.q_proj.weight.view(4, 8, 32).clone()
    q[:, 4:] = q[:, 4:][:, order]
    ours.q_proj.weight.copy_(q.reshape(32, 32))
    ours.kv_down_proj.weight.copy_(theirs.kv_a_proj_with_mqa.weight[:12])
    ours.k_rope_proj.weight.copy_(theirs.kv_a_proj_with_mqa.weight[12:][order])
    up = theirs.kv_b_proj.weight.view(4, 12, 12)
    ours.k_proj.weight.copy_(up[:, :4].reshape(16, 12))
    ours.v_proj.weight.copy_(up[:, 4:].reshape(32, 12))
    ours.o_proj.weight.copy_(theirs.o_proj.weight)
    ours.kv_norm.weight.copy_(theirs.kv_a_layernorm.weight)
    ours.kv_norm.eps = theirs.kv_a_layernorm.variance_epsilon
    x, at = _x(10).float(), torch.arange(10)[None]
    rotary = DeepseekV2RotaryEmbedding(config)(x, at)
    mask = torch.full((10, 10), float("-inf")).triu(1)[None, None]
    wanted = theirs(x, attention_mask=mask, position_embeddings=rotary, position_ids=at)[0]
    from composed import choose

    rope = choose("position", "rope").build(ours.spec)
    torch.testing.assert_close(ours(x, causal_view(10), position=rope), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_latent_attention_caches_the_latent_only():
    model = tiny(attention=("multi_head_latent", {"latent_dim": 6, "rope_dim": 4}))
    cache = model(torch.arange(10)[None], use_cache=True).past_key_values
    assert cache.layers[0].keys.shape == (1, 1, 10, 6)
    assert cache.layers[0].values.shape == (1, 1, 10, 4)


@torch.no_grad()
def test_a_recurrent_state_does_not_grow():
    model = tiny(attention="retention")
    one = model(torch.arange(10)[None], use_cache=True).past_key_values
    two = model(torch.arange(60)[None], use_cache=True).past_key_values
    assert one.layers[0].state.shape == two.layers[0].state.shape == (1, 4, 8, 8)


@torch.no_grad()
def test_cross_attention_reads_everything():
    layer, x, memory = attention_layer("full"), _x(6), _x(9, seed=1)
    view = View(
        query_position_BT=torch.arange(6)[None],
        key_position_BS=torch.arange(9)[None],
        past=0,
        visible=everything,
    )
    q, (k, v) = layer.project_queries(x), layer.project_keys(memory)
    mixed = ((q @ k.transpose(-1, -2)) * 8**-0.5).softmax(-1) @ v
    wanted = layer.o_proj(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, view, memory_BSD=memory), wanted)


# Paged cache


def _kv(rows, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, count, 4, generator=generator), torch.randn(
        rows, 2, count, 4, generator=generator
    )


def test_a_paged_cache_returns_what_a_contiguous_one_holds():
    cache, keys, values = PagedCache(block_size=4), [], []
    for seed, count in enumerate((5, 1, 1, 1, 3, 1)):
        k, v = _kv(3, count, seed)
        keys.append(k)
        values.append(v)
        k_all, v_all = cache.update(k, v)
        assert torch.equal(k_all, torch.cat(keys, 2))
        assert torch.equal(v_all, torch.cat(values, 2))
    assert cache.table.num_blocks() == 9
    assert cache.table.waste() == 0


def test_a_paged_cache_wastes_less_than_one_block_a_sequence():
    cache = PagedCache(block_size=4)
    cache.table.starts = [0, 3, 9]
    k, v = _kv(3, 10, 0)
    k_all, _ = cache.update(k, v)
    assert cache.table.lengths == [10, 7, 1]
    assert cache.table.waste() == 2 + 1 + 3 < 3 * 4
    for row, start in enumerate(cache.table.starts):
        assert torch.equal(k_all[row, :, start:], k[row, :, start:])


def test_sequences_share_their_past_until_one_writes():
    cache = PagedCache(block_size=4)
    k, v = _kv(1, 10, 0)
    cache.update(k, v)
    cache.batch_repeat_interleave(5)
    assert cache.table.num_blocks() == 3, "five sequences hold the same three blocks"
    new_k, new_v = _kv(5, 1, 1)
    k_all, _ = cache.update(new_k, new_v)
    assert cache.table.num_blocks() == 2 + 5, "the two full blocks stay shared, the last is copied on write"
    for row in range(5):
        assert torch.equal(k_all[row], torch.cat((k[0], new_k[row]), 1))


def test_blocks_come_back():
    cache = PagedCache(block_size=4)
    cache.update(*_kv(4, 10, 0))
    cache.crop(-3)
    assert (cache.table.num_blocks(), cache.get_seq_length()) == (8, 7)
    cache.batch_select_indices(torch.tensor([2, 2]))
    assert cache.table.num_blocks() == 2
    cache.reset()
    assert cache.table.num_blocks() == 0


@torch.no_grad()
def test_paged_generation_equals_contiguous_with_beams_samples_and_padding():
    paged, full = tiny(attention="paged"), tiny()
    ids = torch.randint(1, 64, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    for options in ({}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}):
        both = [
            model.generate(
                ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0, **options
            )
            for model in (paged, full)
        ]
        assert torch.equal(*both)


# Gated recurrences


@torch.no_grad()
def test_gated_linear_equals_its_recurrence():
    """Yang et al., section 4.4, as fla computes it: S_t = diag(a_t) S_(t-1) + k_t^T v_t."""
    layer, x = attention_layer("gated_linear"), _x(150)
    torch.nn.init.normal_(layer.norm.weight)
    layer.gate_up_proj.weight.mul_(30)  # gates from nearly 0 to 1
    q, k, v = _heads(layer, x)
    gate = torch.sigmoid(layer.gate_up_proj(layer.gate_down_proj(x))) ** (1 / 16)
    gate = gate.view(2, 150, 4, 8).transpose(1, 2)
    assert gate.min() < 0.5
    s, out = torch.zeros(2, 4, 8, 8).double(), []
    for t in range(150):
        s = gate[:, :, t, :, None] * s + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append(torch.einsum("bnh,bnhe->bne", q[:, :, t] * 8**-0.5, s))
    mixed = torch.stack(out, 1)
    normed = mixed * (mixed.square().mean(-1, keepdim=True) + layer.spec.norm_eps).rsqrt() * layer.norm.weight
    wanted = layer.o_proj(normed.flatten(2) * F.silu(layer.g_proj(x)))
    torch.testing.assert_close(layer(x, causal_view(150)), wanted)


@pytest.mark.parametrize("gate", [-1e4, -200.0, 200.0])
@torch.no_grad()
def test_gates_that_close_or_never_close_overflow_nothing(gate):
    layer, x = attention_layer("gated_linear").float(), _x(40).float()
    layer.gate_up_proj.bias.fill_(gate)
    assert layer(x, causal_view(40)).isfinite().all()


def _mamba2(groups):
    """A layer of transformers' Mamba-2, and ours with its weights."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=32, num_heads=8, head_dim=8, state_size=6, n_groups=groups, expand=2, conv_kernel=4,
        num_hidden_layers=1, layer_norm_epsilon=1e-5, chunk_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = Mamba2Mixer(config, 0).eval()
    for name, parameter in theirs.named_parameters():
        parameter.add_(torch.randn(parameter.shape), alpha=0.1 if "proj" in name else 0.5)
    ours = attention_layer("mamba2", num_heads=8, state_dim=6, num_groups=groups).float()
    z, v, k, q, step = theirs.in_proj.weight.split((64, 64, 6 * groups, 6 * groups, 8))
    for name, weight in {"z": z, "v": v, "k": k, "q": q, "step": step}.items():
        getattr(ours, f"{name}_proj").weight.copy_(weight)
    ours.conv.load_state_dict(theirs.conv1d.state_dict())
    ours.step_bias.copy_(theirs.dt_bias)
    ours.log_rate.copy_(theirs.A_log)
    ours.skip.copy_(theirs.D)
    ours.norm_weight.copy_(theirs.norm.weight)
    ours.o_proj.weight.copy_(theirs.out_proj.weight)
    return theirs, ours


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_mamba2_equals_transformers(groups):
    theirs, ours = _mamba2(groups)
    x = _x(150).float()
    torch.testing.assert_close(ours(x, causal_view(150)), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "retention", "gated_linear", "mamba2"])
def test_documents_reset_a_state_and_time_stays_linear(name):
    """Packed rows equal each document alone, gradients too, wherever documents end within a chunk."""
    layer, length = attention_layer(name), 300
    x = _x(length).requires_grad_()
    cuts = ((0, 1, 128, 140, 300), (0, 257, 300))
    documents = torch.zeros(2, length, dtype=torch.long)
    for row, of_row in enumerate(cuts):
        for cut in of_row[1:-1]:
            documents[row, cut:] += 1
    packed = layer(x, dataclasses.replace(causal_view(length), document_BS=documents))
    alone = torch.stack(
        [
            torch.cat([layer(x[row : row + 1, a:b], causal_view(b - a))[0] for a, b in pairwise(of)])
            for row, of in enumerate(cuts)
        ]
    )
    torch.testing.assert_close(packed, alone)
    weights = torch.randn(packed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gradients = [
        torch.autograd.grad((out * weights).sum(), x, retain_graph=True)[0] for out in (packed, alone)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["full", "grouped_query", "sliding_window"])
def test_softmax_over_documents_equals_a_dense_mask_with_its_gradients(name):
    """Long and short documents, one token among them, alone or together in a block."""
    window = 70 if name == "sliding_window" else 400
    options = {"sliding_window": {"window": window}, "grouped_query": {"num_kv_heads": 2}}.get(name, {})
    layer, x = attention_layer(name, **options), _x(400).requires_grad_()
    documents = torch.zeros(2, 400, dtype=torch.long)
    for row, cuts in enumerate(((1, 6, 150, 290), (128, 129, 140))):
        for cut in cuts:
            documents[row, cut:] += 1
    q, k = _offsets(400)
    same = (documents[:, :, None] == documents[:, None])[:, None]
    allowed = same & (k <= q) & (q - k < window)
    packed = layer(x, dataclasses.replace(causal_view(400), document_BS=documents))
    dense = _dense(layer, x, allowed)
    torch.testing.assert_close(packed, dense)
    weights = torch.randn(packed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inputs = [x, *layer.parameters()]
    for found, expected in zip(
        *(torch.autograd.grad((out * weights).sum(), inputs) for out in (packed, dense)), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("position", ["rope", "xpos"])
@pytest.mark.parametrize("name", ["linear", "retention", "gated_linear", "mamba2"])
@torch.no_grad()
def test_rotated_recurrences_depend_on_distances_only(name, position):
    model = tiny(attention=name, position=position).double()
    ids = torch.arange(20)[None]
    at = torch.arange(20)[None]
    moved = model(ids, position_ids=at + 64).logits
    torch.testing.assert_close(moved, model(ids, position_ids=at).logits, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_rotated_linear_attention_equals_roformer():
    """Su et al., eq. 19: rotations above the line, none below."""
    layer, x = attention_layer("linear"), _x(30)
    rope = choose("position", "rope").build(layer.spec).double()
    q, k, v = _heads(layer, x)
    q, k, at = F.elu(q) + 1, F.elu(k) + 1, torch.arange(30)[None]
    turned = [rope.rotate(t, at, is_key=False) for t in (q, k)]
    top = (turned[0] @ turned[1].transpose(-1, -2)).tril() @ v
    bottom = (q @ k.transpose(-1, -2)).tril().sum(-1, keepdim=True)
    wanted = layer.o_proj((top / bottom).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, causal_view(30), position=rope), wanted)


def test_documents_given_on_the_host_are_found_without_reading_the_device():
    model = tiny(shape={"max_length": 400}).to("meta")
    ids, documents = torch.zeros(1, 400, dtype=torch.long, device="meta"), (torch.arange(400) // 150)[None]
    view = view_of(ids, architecture=model.model.architecture, num_layers=2, document_ids=documents)
    parts = view.parts()
    assert [[part.num_queries for part in row] for row in parts] == [[150, 150, 100]]
    assert model(ids, document_ids=documents).logits.shape == (1, 400, 64)
