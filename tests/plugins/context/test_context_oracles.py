"""Context methods against transformers' frequencies, and against positions written out pair by pair."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from composed import tiny
from torch import Tensor

from harness.conformance.test_context import LENGTH, ids, logits, model_of
from harness.errors import ConfigError, IncompatibleError
from harness.ops.extension import rotary_modules
from harness.registry.known import registry


def build(name: str, **options: Any) -> Any:
    method = registry().get("context", name)
    return method(method.Config(**options))


def frequencies(model: Any) -> Tensor:
    return rotary_modules(model)[0].inv_freq  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("name", "rope_type"),
    [
        ("position_interpolation", "linear"),
        ("yarn", "yarn"),
        ("dynamic_ntk", "dynamic"),
        ("llama3", "llama3"),
    ],
)
def test_frequencies_equal_transformers(name: str, rope_type: str, kind: str) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factor = 4.0
    parameters = {"rope_type": rope_type, "factor": factor, "rope_theta": 10000.0}
    parameters |= {"original_max_position_embeddings": LENGTH} if name in ("yarn", "llama3") else {}
    parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if name == "llama3" else {}
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
    # Trained on 32, 4 for the task and 4 for the answer: of 54 tokens the last 4 are the task, and the 50
    # before make three windows of 17 (the last one shorter); the task stands at 17, 18, ...
    place = [i % 17 if i < 50 else 17 + i - 50 for i in (q, k)]
    return place[0] - place[1], q >= 50 or q // 17 == k // 17


OPTIONS = {
    "rerope": {"window": 5},
    "leaky_rerope": {"window": 5, "leak": 4.0},
    "lambda_window": {"sinks": 2, "window": 5, "limit": 7},
    "streaming": {"sinks": 2, "window": 5},
    "parallel_context_windows": {"task_length": 4, "answer_length": 4, "factor": 56 / 32},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_pair_is_compared_at_the_papers_distance(name: str) -> None:
    from harness.ops.heads import Heads

    T = 54 if name == "parallel_context_windows" else 14
    method = build(name, **OPTIONS[name])
    method.before_install(model_of("ours"))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, T, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    inv_freq = 100 ** (-torch.arange(4, dtype=torch.float64) / 4)
    position = torch.arange(T)[None]
    heads = Heads(
        q_BNTH=q,
        k_BKSH=k,
        v_BKSH=v,
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
@pytest.mark.parametrize("name", ["rerope", "streaming", "lambda_window"])
def test_greedy_generation_with_a_cache_equals_without(name: str, kind: str) -> None:
    model = build(name, **OPTIONS[name]).apply(model_of(kind))
    row = ids(LENGTH + 9)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(
        model.generate(row, use_cache=True, **options), model.generate(row, use_cache=False, **options)
    )


@pytest.mark.parametrize("name", ["streaming", "parallel_context_windows"])
def test_beams_of_a_batch_are_those_of_each_row_alone(name: str) -> None:
    """Rows without padding, of which a cache keeps positions and lengths as it keeps keys."""
    model, rows = build(name, **OPTIONS[name]).apply(model_of("ours")), ids(LENGTH + 9, 2)
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    options |= {"eos_token_id": None}
    both = model.generate(rows, **options)
    assert torch.equal(both, torch.cat([model.generate(row[None], **options) for row in rows]))


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_an_answer_belongs_to_the_task_of_the_prompt_it_was_asked_by(kind: str) -> None:
    method = build("parallel_context_windows", **OPTIONS["parallel_context_windows"])
    model, row = method.apply(model_of(kind)), ids(LENGTH + 13)
    prompt = LENGTH + 9
    with torch.no_grad():
        out = model(input_ids=row[:, :prompt], use_cache=True)
        steps, cache = [out.logits[:, -1]], out.past_key_values
        for place in range(prompt, row.shape[1]):
            out = model(input_ids=row[:, place : place + 1], past_key_values=cache, use_cache=True)
            steps.append(out.logits[:, -1])
    method.task += row.shape[1] - prompt  # what was read at once, told where its context ends
    whole = logits(model, row)[:, prompt - 1 :]
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_ordinary_prompts_are_read_as_trained_and_tasks_read_every_window(kind: str) -> None:
    short, method = ids(LENGTH), build("parallel_context_windows", factor=4.0)
    expected = logits(model_of(kind), short)
    model = method.apply(model_of(kind))
    torch.testing.assert_close(logits(model, short), expected, rtol=1e-3, atol=1e-4)
    for length in range(LENGTH + 1, 4 * LENGTH, 17):
        row = ids(length)
        plain = logits(model, row)[0, -1]
        for place in range(0, length, max(1, length // 6)):
            changed = row.clone()
            changed[0, place] = (changed[0, place] + 1) % 48
            assert not torch.equal(logits(model, changed)[0, -1], plain), f"{place} of {length} is not read"


def rows_of(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of these lengths, padded on the left: ids, mask, positions."""
    width = max(lengths)
    made = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(made)
    for row, length in enumerate(lengths):
        made[row, width - length :] = ids(length)[0]
        mask[row, width - length :] = 1
    return made, mask, (mask.cumsum(-1) - 1).clamp(min=0)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", [name for name in registry().methods("context") if name != "none"])
def test_neighbours_in_a_batch_change_nothing(name: str, kind: str) -> None:
    model = build(name, **OPTIONS.get(name, {"factor": 2.0})).apply(model_of(kind))
    lengths = [LENGTH // 2, LENGTH, LENGTH + 9, 2 * LENGTH]
    made, mask, positions = rows_of(lengths)
    together = logits(model, made, attention_mask=mask, position_ids=positions)
    for row, length in enumerate(lengths):
        alone = logits(model, ids(length))
        torch.testing.assert_close(together[row, -length:], alone[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", ["streaming", "lambda_window"])
def test_windowed_caches_stay_bounded_and_exact(name: str, kind: str) -> None:
    """Tokens read in chunks and one by one, in rows of different lengths, equal one pass over everything."""
    model = build(name, sinks=3, window=20).apply(model_of(kind))
    lengths = [400, 230, 397]
    made, mask, positions = rows_of(lengths)
    whole = logits(model, made, attention_mask=mask, position_ids=positions)
    cache, found, start = None, [], 0
    for size in [150, 100, 50, 80, *[1] * 20]:
        with torch.no_grad():
            out = model(
                input_ids=made[:, start : start + size],
                attention_mask=mask[:, : start + size],
                position_ids=positions[:, start : start + size],
                past_key_values=cache,
                use_cache=True,
            )
        cache, start = out.past_key_values, start + size
        found.append(out.logits)
        assert cache.layers[0].keys.shape[2] <= 3 + 20 + 2 * 64 + 3
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            torch.cat(found, dim=1)[row, -length:], whole[row, -length:], rtol=1e-3, atol=1e-4
        )
    assert cache.get_seq_length() == 400
    cache.batch_select_indices(torch.tensor([2, 0]))
    assert cache.layers[1].keys.shape[0] == 2


RESTRICTING: dict[str, dict[str, Any]] = {
    "sliding_window": {"attention": ("sliding_window", {"window": 7})},
    "strided": {"attention": ("sparse_factorized", {"stride": 5, "summary": 2})},
    "pattern": {"shape": {"layer_pattern": [{"attention": {"method": "sliding_window", "window": 7}}, {}]}},
}
"""Models of ours some of whose layers read less than all that stands before."""


@pytest.mark.parametrize("name", ["streaming", "lambda_window"])
@pytest.mark.parametrize("model", RESTRICTING)
def test_an_attentions_own_mask_holds_with_a_bounded_cache(model: str, name: str) -> None:
    """Long enough that tokens between the first and the last ones are gone, in rows of other lengths."""
    made, mask, positions = rows_of([230, 229, 190])
    changed = build(name, sinks=3, window=20).apply(tiny(**RESTRICTING[model]))
    whole = logits(changed, made, attention_mask=mask, position_ids=positions)
    cache, found, start = None, [], 0
    for size in [170, 40, *[1] * 20]:
        with torch.no_grad():
            out = changed(
                input_ids=made[:, start : start + size],
                attention_mask=mask[:, : start + size],
                past_key_values=cache,
                use_cache=True,
            )
        cache, start = out.past_key_values, start + size
        found.append(out.logits)
    assert cache.layers[0].keys.shape[2] < start
    torch.testing.assert_close(torch.cat(found, dim=1)[:, 41:], whole[:, 41:], rtol=1e-3, atol=1e-4)


def windowed(family: str) -> Any:
    """A model of a family whose layers, or some of them, have a window of their own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": LENGTH,
        "sliding_window": 7,
        "pad_token_id": 0,
    }
    if family == "qwen2":
        shape |= {"use_sliding_window": True, "max_window_layers": 1}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, bos_token_id=None, eos_token_id=None, **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("name", ["streaming", "lambda_window"])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "qwen2"])
def test_a_models_own_window_holds_with_a_bounded_cache(family: str, name: str) -> None:
    model = build(name, sinks=2, window=20).apply(windowed(family))
    made = ids(60) % 48
    whole = logits(model, made)
    cache, found = None, []
    for part in made.split([25, 20, *[1] * 15], dim=1):
        with torch.no_grad():
            out = model(input_ids=part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, rtol=1e-3, atol=1e-4)


SCALED = {
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "linear": {"factor": 2.0},
}


def scaled_llama(rope_type: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    parameters = {"rope_type": rope_type, "rope_theta": 5e5, **SCALED[rope_type]}
    if rope_type == "llama3":
        parameters["original_max_position_embeddings"] = LENGTH // 2
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            rope_parameters=parameters,
        )
    )


@pytest.mark.parametrize("rope_type", SCALED)
def test_methods_build_on_the_scaling_that_is_there(rope_type: str) -> None:
    there = frequencies(scaled_llama(rope_type)).double()
    pair = torch.arange(8, dtype=torch.float64)
    expected = {
        "position_interpolation": there / 3,
        "ntk_aware": there * 3.0 ** (-2 * pair / 14),
        "base_modification": there * (1e6 / 5e5) ** (-2 * pair / 16),
    }
    for name, wanted in expected.items():
        options = {"base": 1e6} if name == "base_modification" else {"factor": 3.0}
        found = frequencies(build(name, **options).apply(scaled_llama(rope_type)))
        torch.testing.assert_close(
            found.double(), wanted, rtol=1e-5, atol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_factor_that_is_no_round_number_of_tokens_is_exact() -> None:
    plain = frequencies(model_of("ours"))
    for name in ("position_interpolation", "yarn"):
        found = frequencies(build(name, factor=7.3).apply(model_of("ours")))
        torch.testing.assert_close(found[-1], plain[-1] / 7.3, rtol=1e-6, atol=0)
    found = frequencies(build("ntk_aware", factor=7.3).apply(model_of("ours")))
    torch.testing.assert_close(found[-1], plain[-1] / 7.3, rtol=1e-5, atol=0)


def test_positions_that_follow_the_length_by_themselves_are_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for name in ("position_interpolation", "rerope", "dynamic_ntk"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=48, rope_parameters=parameters, **shape))
        with pytest.raises(IncompatibleError, match="follow the length by themselves"):
            build(name).apply(model)


def gemma3() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=LENGTH,
        sliding_window=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=16,
        pad_token_id=0,
    )
    return Gemma3ForCausalLM(config).eval()


def glm() -> Any:
    from transformers import GlmConfig, GlmForCausalLM

    torch.manual_seed(0)
    config = GlmConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=LENGTH,
        pad_token_id=0,
        eos_token_id=1,
    )
    return GlmForCausalLM(config).eval()


def sharp(model: Any) -> Any:
    for name, p in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            p.data.mul_(12)
    return model


@pytest.mark.parametrize("name", ["position_interpolation", "yarn", "llama3"])
def test_gemma_scales_the_layers_that_read_far_and_no_others(name: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = {"position_interpolation": "linear"}.get(name, name)
    model, module = gemma3(), None
    local = model.model.rotary_emb.sliding_attention_inv_freq.clone()
    model.config.rope_parameters["full_attention"] |= {
        "rope_type": kind,
        "factor": 4.0,
        "original_max_position_embeddings": LENGTH,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    expected, attention = ROPE_INIT_FUNCTIONS[kind](model.config, layer_type="full_attention")
    module = build(name, factor=4.0).apply(gemma3()).model.rotary_emb
    torch.testing.assert_close(module.full_attention_inv_freq, expected, rtol=1e-6, atol=0)
    assert module.full_attention_attention_scaling == pytest.approx(attention)
    assert torch.equal(module.sliding_attention_inv_freq, local)
    assert module.sliding_attention_attention_scaling == 1.0


def cohere() -> Any:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CohereConfig(
        vocab_size=48, max_position_embeddings=LENGTH, pad_token_id=0, eos_token_id=1, **shape
    )
    return CohereForCausalLM(config).eval()


@pytest.mark.parametrize("make", [gemma3, glm, cohere])
@pytest.mark.parametrize("name", [*WINDOWED, "dynamic_ntk"])
def test_wide_windows_are_full_attention_on_other_families(name: str, make: Any) -> None:
    row = ids(LENGTH)
    expected = logits(sharp(make()), row)
    model = build(name, **WINDOWED.get(name, {})).apply(sharp(make()))
    torch.testing.assert_close(logits(model, row), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        first = model(input_ids=row[:, :20], use_cache=True)
        second = model(input_ids=row[:, 20:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat((first.logits, second.logits), 1), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("seen", [LENGTH - 3, 3 * LENGTH])
def test_longrope_frequencies_equal_transformers(seen: int, kind: str) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    long, short = [1.0 + 0.5 * i for i in range(8)], [1.0 + 0.01 * i for i in range(8)]
    parameters = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0}
    parameters |= {"long_factor": long, "short_factor": short, "original_max_position_embeddings": LENGTH}
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=2, max_position_embeddings=4 * LENGTH, rope_parameters=parameters
    )
    expected, attention = ROPE_INIT_FUNCTIONS["longrope"](config, torch.device("cpu"), seq_len=seen)
    model = build("longrope", factor=4.0, long=long, short=short).apply(model_of(kind))
    logits(model, ids(seen))
    torch.testing.assert_close(frequencies(model), expected, rtol=1e-6, atol=0)
    module: Any = rotary_modules(model)[0]
    found = module.attention_factor if kind == "ours" else module.attention_scaling
    assert found == pytest.approx(attention)


def test_a_number_of_factors_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"context\.long has 3 factors, but the model has 8 rotations"):
        logits(build("longrope", long=[1.0, 2.0, 3.0]).apply(model_of("ours")), ids(2 * LENGTH))


def test_models_without_rotary_positions_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2))
    for name in ("position_interpolation", "rerope"):
        with pytest.raises(IncompatibleError, match="no rotary position embedding"):
            build(name).apply(model)


def test_models_that_attend_otherwise_are_refused_by_trying() -> None:
    """Cohere 2's layers that read everything rotate nothing, which no attribute of theirs says."""
    from transformers import Cohere2Config, Cohere2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    kinds = ["full_attention"]
    config = Cohere2Config(
        vocab_size=48, num_key_value_heads=1, layer_types=kinds, pad_token_id=0, bos_token_id=1, **shape
    )
    with pytest.raises(IncompatibleError, match="not rotary attention as Llama has it"):
        build("rerope").apply(sharp(Cohere2ForCausalLM(config)))


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


@pytest.mark.parametrize("architecture", ["prefix_decoder", "encoder_decoder"])
@pytest.mark.parametrize("name", ["rerope", "external_memory"])
@torch.no_grad()
def test_prompts_that_are_read_in_both_directions_are_read_whole(name: str, architecture: str) -> None:
    """A prefix or a source of more tokens than a block of queries."""
    layers = 2 if architecture == "encoder_decoder" else 0
    model = tiny(architecture=architecture, shape={"num_encoder_layers": layers, "max_length": 1024})
    ids = torch.arange(600)[None] * 7 % 64
    inputs: dict[str, Any] = {"prefix_length": torch.tensor([550])}
    if layers:
        inputs = {"encoder_input_ids": ids.flip(1)}
    wanted = model(ids, **inputs).logits
    method: Any = registry().get("context", name)
    applied = method(method.Config(window=1000)).apply(model)
    torch.testing.assert_close(applied(ids, **inputs).logits, wanted, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_bounded_scores_stay_bounded() -> None:
    """Gemma 2's, where scores are large enough for the bound to tell."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 128}
    config = Gemma2Config(**shape, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, sliding_window=64)
    theirs = Gemma2ForCausalLM(config).eval()
    for name, parameter in theirs.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            parameter *= 20
    ids = torch.arange(40)[None] * 7 % 64
    wanted = theirs(ids).logits
    method: Any = registry().get("context", "rerope")
    found = method(method.Config(window=100)).apply(theirs)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    ours = tiny(shape={"attention_cap": 0.5})
    for name, parameter in ours.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            parameter *= 10
    wanted = ours(ids).logits
    found = method(method.Config(window=100)).apply(ours)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
