"""Context methods against transformers' frequencies, and against positions written out pair by pair."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.conformance.test_context import LENGTH, ids, logits, model_of
from harness.errors import ConfigError, IncompatibleError
from harness.ops.extension import rotary_modules
from harness.registry import registry


def build(name: str, **options: Any) -> Any:
    method = registry().get("context", name)
    return method(method.Config(**options))


def frequencies(model: Any) -> Tensor:
    return rotary_modules(model)[0].inv_freq  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("name", "rope_type"),
    [("position_interpolation", "linear"), ("yarn", "yarn"), ("dynamic_ntk", "dynamic")],
)
def test_frequencies_equal_transformers(name: str, rope_type: str, kind: str) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factor = 4.0
    parameters = {"rope_type": rope_type, "factor": factor, "rope_theta": 10000.0}
    parameters |= {"original_max_position_embeddings": LENGTH} if name == "yarn" else {}
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=2, max_position_embeddings=LENGTH, rope_parameters=parameters
    )
    seen = 3 * LENGTH
    expected, attention = ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"), seq_len=seen)
    model = build(name, factor=factor).apply(model_of(kind))
    logits(model, ids(seen))
    torch.testing.assert_close(frequencies(model), expected, rtol=1e-6, atol=0)
    module: Any = rotary_modules(model)[0]
    found = module.attention_factor if kind == "ours" else module.attention_scaling
    assert found == pytest.approx(attention)


def test_ntk_aware_interpolates_the_slowest_and_spares_the_fastest() -> None:
    plain = frequencies(model_of("ours"))
    found = frequencies(build("ntk_aware", factor=4.0).apply(model_of("ours")))
    expected = torch.tensor([(10000 * 4 ** (16 / 14)) ** (-2 * i / 16) for i in range(8)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert float(found[0]) == float(plain[0])
    assert float(found[-1]) == pytest.approx(float(plain[-1]) / 4, rel=1e-5)


def test_base_modification_is_the_formula() -> None:
    found = frequencies(build("base_modification", base=5e5).apply(model_of("theirs")))
    expected = torch.tensor([5e5 ** (-2 * i / 16) for i in range(8)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_basis_truncation_keeps_holds_and_stops() -> None:
    plain = frequencies(model_of("ours"))
    found = frequencies(build("basis_truncation", low=1e-3, high=0.1, floor=0.02).apply(model_of("ours")))
    for before, after in zip(plain.tolist(), found.tolist(), strict=True):
        expected = before if before >= 0.1 else 0.02 if before >= 1e-3 else 0.0
        assert after == pytest.approx(expected)


def test_dynamic_ntk_reads_short_sequences_as_trained() -> None:
    row = ids(LENGTH)
    model = model_of("ours")
    expected = logits(model, row)
    extended = build("dynamic_ntk").apply(model)
    logits(extended, ids(2 * LENGTH))
    torch.testing.assert_close(logits(extended, row), expected)


WINDOWED = {
    "rerope": {"window": 1000},
    "leaky_rerope": {"window": 1000},
    "lambda_window": {"sinks": 0, "window": 1000, "limit": 1000},
    "streaming": {"sinks": 0, "window": 1000},
    "external_memory": {"window": 1, "k": 1000, "factor": 3.0},
}


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", WINDOWED)
def test_wide_windows_are_full_attention(name: str, kind: str) -> None:
    # external_memory caps distances at the trained length, so it equals full attention up to there.
    row = ids(LENGTH if name == "external_memory" else 2 * LENGTH)
    expected = logits(model_of(kind), row)
    found = logits(build(name, **WINDOWED[name]).apply(model_of(kind)), row)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def rotation(distance: float, inv_freq: Tensor) -> Tensor:
    """The matrix that a pair at this distance is compared through: q^T R k."""
    half = len(inv_freq)
    matrix = torch.zeros(2 * half, 2 * half, dtype=torch.float64)
    for i, theta in enumerate(inv_freq.double().tolist()):
        cos, sin = math.cos(distance * theta), math.sin(distance * theta)
        matrix[i, i] = matrix[i + half, i + half] = cos
        matrix[i, i + half], matrix[i + half, i] = sin, -sin
    return matrix


def distances(name: str, q: int, k: int) -> tuple[float, bool]:
    """(distance, whether it is read) of each method with the options below, written from the papers."""
    d = q - k
    if name == "rerope":
        return min(d, 5), True
    if name == "leaky_rerope":
        return (d if d < 5 else 5 + (d - 5) / 4), True
    if name == "lambda_window":
        return min(d, 7), d < 5 or k < 2
    if name == "streaming":
        cached = [*range(min(2, q + 1)), *(i for i in range(2, q + 1) if i > q - 5)]
        return (len(cached) - 1 - cached.index(k) if k in cached else 0), k in cached
    assert name == "parallel_context_windows"
    # Trained on 32 with 8 for the task: two windows of 24, then the task at 24, 25, ...
    place = [i % 24 if i < 48 else 24 + i - 48 for i in (q, k)]
    return place[0] - place[1], q >= 48 or q // 24 == k // 24


OPTIONS = {
    "rerope": {"window": 5},
    "leaky_rerope": {"window": 5, "leak": 4.0},
    "lambda_window": {"sinks": 2, "window": 5, "limit": 7},
    "streaming": {"sinks": 2, "window": 5},
    "parallel_context_windows": {"task_length": 8, "factor": 56 / 32},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_pair_is_compared_at_the_papers_distance(name: str) -> None:
    from harness.ops.unrotated import Heads

    T = 54 if name == "parallel_context_windows" else 14
    method = build(name, **OPTIONS[name])
    method.before_install(model_of("ours"))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, T, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    inv_freq = 100 ** (-torch.arange(4, dtype=torch.float64) / 4)
    position = torch.arange(T)[None]
    heads = Heads(
        q_BNTH=q,
        k_BNSH=k,
        v_BNSH=v,
        query_position_BT=position,
        key_position_BS=position,
        visible_BNTS=torch.ones(T, T, dtype=torch.bool).tril()[None, None],
        scale=0.5,
        inv_freq=inv_freq,
        attention_factor=1.0,
    )
    found = method.attend(heads)[0, 0]
    for i in {*range(0, T, 6), T - 1}:
        pairs = [(j, *distances(name, i, j)) for j in range(i + 1)]
        read = [(j, d) for j, d, is_read in pairs if is_read]
        scores = torch.stack([0.5 * q[0, 0, i] @ rotation(d, inv_freq) @ k[0, 0, j] for j, d in read])
        expected = scores.softmax(0) @ torch.stack([v[0, 0, j] for j, _ in read])
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-6)


def test_external_memory_fetches_the_best_earlier_keys() -> None:
    model = model_of("ours")
    row = ids(LENGTH)
    full = logits(build("external_memory", window=4, k=LENGTH).apply(model_of("ours")), row)
    torch.testing.assert_close(full, logits(model, row), rtol=1e-3, atol=1e-4)
    some = logits(build("external_memory", window=4, k=8).apply(model_of("ours")), row)
    none = logits(build("external_memory", window=4, k=0).apply(model_of("ours")), row)
    assert (some - full).norm() < 0.7 * (none - full).norm()


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", ["rerope", "streaming", "lambda_window", "parallel_context_windows"])
def test_greedy_generation_with_a_cache_equals_without(name: str, kind: str) -> None:
    model = build(name, **OPTIONS[name]).apply(model_of(kind))
    row = ids(LENGTH + 9)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(
        model.generate(row, use_cache=True, **options), model.generate(row, use_cache=False, **options)
    )


def test_models_without_rotary_positions_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2))
    for name in ("position_interpolation", "rerope"):
        with pytest.raises(IncompatibleError, match="no rotary position embedding"):
            build(name).apply(model)


def test_models_that_rotate_otherwise_are_refused_by_trying() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    model = CohereForCausalLM(
        CohereConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
        )
    )
    for name, p in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            p.data.mul_(30)
    with pytest.raises(IncompatibleError, match="not rotary attention as Llama has it"):
        build("rerope").apply(model)


def test_impossible_options_are_refused() -> None:
    for name, options, message in (
        ("yarn", {"factor": 0.5}, "context.factor=0.5 must be at least 1"),
        ("yarn", {"slow": 64.0}, "context.slow=64"),
        ("rerope", {"window": 0}, "context.window=0"),
        ("base_modification", {"base": 1.0}, "context.base=1"),
        ("direct_finetune", {"stages": [4.0, 3.0], "factor": 8.0}, "must increase"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(name, **options)
