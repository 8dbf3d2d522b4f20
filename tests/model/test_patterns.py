"""Layers that differ: a pattern in the shape, known to the plan, the checkpoint and the cache."""

import json

import pytest
import torch
from composed import SPEC, tiny

from harness import ConfigError, IncompatibleError
from harness.compose import compose
from harness.plan.problems import problems
from harness.registry.known import registry

WINDOWS = [
    {"attention": {"method": "sliding_window", "window": 4}},
    {"attention": {"method": "sliding_window", "window": 4}},
    {},
]
"""Window, window, full: Gemma 3 in small."""
MIXED = [
    {"attention": {"method": "mamba2", "state_dim": 8}, "position": {"method": "rope", "fraction": 1.0}},
    {"attention": {"method": "linear"}, "feed_forward": {"method": "moe_top_k"}},
    {"position": {"base": 100.0}},
]
"""Recurrences of two kinds and attention, with experts and another base in one layer: Jamba in small."""


WIDTHS = [
    {"attention": {"method": "multi_head_latent", "latent_dim": 8, "rope_dim": 4}},
    {"attention": {"method": "mamba2", "state_dim": 12}},
    {},
]
"""Attentions that leave 4, 12 and all components of a head to rotation."""


def _deep(pattern, **methods):
    return tiny(shape={"num_layers": 5, "layer_pattern": pattern}, **methods)


TERMS = [{}, {"position": {"method": "alibi"}}, {"position": {"method": "relative_t5"}}]
"""Scores to which layers add nothing, or terms of their own."""


@pytest.mark.parametrize(
    "pattern", [WINDOWS, MIXED, WIDTHS, TERMS], ids=["windows", "mixed", "widths", "terms"]
)
@torch.no_grad()
def test_a_hybrid_decodes_and_packs_as_it_reads_at_once(pattern):
    model = _deep(pattern)
    ids = torch.randint(1, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    whole, cache = model(ids).logits, model.new_cache()
    for start, end in ((0, 9), (9, 10), (10, 20)):
        part = model(ids[:, start:end], past_key_values=cache).logits
        torch.testing.assert_close(part, whole[:, start:end], rtol=1e-3, atol=1e-4)
    documents = torch.tensor([[0] * 7 + [1] * 13] * 2)
    packed = model(ids, document_ids=documents).logits
    torch.testing.assert_close(packed[:, 7:], model(ids[:, 7:]).logits, rtol=1e-3, atol=1e-4)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    padded = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(padded[:1, 6:], model(ids[:1, 6:]).logits, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_layer_is_what_the_pattern_says():
    model = _deep(MIXED)
    kinds = [layer.self_attn.name for layer in model.model.layers]
    assert kinds == ["mamba2", "linear", "full", "mamba2", "linear"]
    assert [layer.mlp.name for layer in model.model.layers][:3] == ["swiglu", "moe_top_k", "swiglu"]
    at = model.model.position_of_layer
    assert [model.model.position_at(i).config.base for i in at] == [1e4, 1e4, 100.0, 1e4, 1e4]
    plain = tiny(shape={"num_layers": 5})
    windows = _deep(WINDOWS)
    windows.load_state_dict(plain.state_dict())
    ids = torch.arange(4)[None]
    torch.testing.assert_close(windows(ids).logits, plain(ids).logits)
    ids = torch.arange(30)[None]
    assert not torch.allclose(windows(ids).logits, plain(ids).logits, atol=1e-3)


def test_each_layer_rotates_what_its_own_attention_leaves_to_positions():
    whole = SPEC.head_dim
    for chosen, widths in (("full", [4, 12, whole]), (("mamba2", {"state_dim": 6}), [4, 12, 6])):
        model = _deep(WIDTHS, attention=chosen).model
        assert [model.position_at(at).width for at in model.position_of_layer][:3] == widths


@torch.no_grad()
def test_a_hybrid_is_saved_with_its_pattern(tmp_path):
    from transformers import AutoModelForCausalLM

    model, ids = _deep(MIXED), torch.arange(12)[None]
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["spec"]["layer_pattern"] == MIXED
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


SLIDES = {"attention": {"method": "sliding_window", "window": 4}}
ROTATED = {"method": "rope", "base": 100.0}
GEMMA = {"norm_position": "sandwich", "feed_forward": ("geglu", {"tanh": True})}
GEMMA_SHAPE = {"norm_offset": True, "embedding_scale": SPEC.dim**0.5}


@pytest.mark.parametrize(
    ("pattern", "methods", "shape", "family"),
    [
        ([SLIDES, {}], {}, {}, "qwen3"),
        ([{"attention": {"method": "sliding_window"}}, {"attention": {"kernel": "math"}}], {}, {}, "qwen3"),
        ([{}, {"attention": {"window": 5}}], {"attention": ("sliding_window", {"window": 5})}, {}, "qwen3"),
        ([SLIDES | {"position": ROTATED}, {}], GEMMA, GEMMA_SHAPE, "gemma3_text"),
        ([{"attention": {"window": 5}}, {}], {"attention": ("sliding_window", {"window": 4})}, {}, ""),
        ([SLIDES, {}], {"attention": ("grouped_query", {"num_kv_heads": 2})}, {}, ""),
        ([{"attention": {"method": "linear"}}, {}], {}, {}, ""),
        ([{"position": ROTATED}, {}], {}, {}, ""),
        ([SLIDES | {"position": {"method": "nope"}}, {}], GEMMA, GEMMA_SHAPE, ""),
    ],
)
@torch.no_grad()
def test_a_pattern_is_exported_as_transformers_reads_it_or_refused(pattern, methods, shape, family, tmp_path):
    """What a node leaves out is the method's default, or the model's own option."""
    from transformers import AutoModelForCausalLM

    from harness.model.checkpoint import export_checkpoint

    model = tiny(shape={"num_layers": 3, "qk_norm": True, "layer_pattern": pattern, **shape}, **methods)
    if not family:
        with pytest.raises(IncompatibleError, match=r"layer_pattern|several widths|position=nope in a layer"):
            export_checkpoint(model, tmp_path)
        return
    assert export_checkpoint(model, tmp_path) == family
    ids = torch.arange(1, 15)[None]
    found = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits
    torch.testing.assert_close(found, model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "[{norm:{method:layernorm}}]",
            "layer_pattern.0.norm: layers may differ in attention, position, feed_f",
        ),
        ("[{},{attention:{method:gqq}}]", "No attention method is called 'gqq'"),
        ("[{attention:{method:sliding_window,windw:3}}]", "layer_pattern.0.attention"),
        (
            "[{attention:{method:linear},position:{method:alibi}}]",
            "attention=linear has no scores that position",
        ),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_by_the_plan(pattern, message):
    found = problems(compose([f"model.layer_pattern={pattern}"]))
    assert any(message in str(problem) for problem in found), found


def test_the_plan_knows_a_pattern():
    """Another pattern is another model: its key, its code and its parameters follow."""
    from harness.model.pattern import every_choice
    from harness.plan.problems import shapes_of

    plain = compose([])
    cell = compose(["model.layer_pattern=[{attention:{method:multi_query}},{}]"])
    assert not problems(cell)
    assert cell.id != plain.id
    sizes = [sum(p.numel() for p in shapes_of(c).parameters()) for c in (plain, cell)]
    assert sizes[1] < sizes[0]
    names = {choice.method.name for choice in every_choice(cell.spec(), shapes_of(cell).choices)}
    assert {"multi_query", "full", "rope", "swiglu"} == names


def test_a_pattern_on_an_unknown_axis_names_the_known():
    with pytest.raises(ConfigError, match="not in objective"):
        tiny(shape={"layer_pattern": [{"objective": {"method": "denoising"}}]})
    assert SPEC.layer_pattern == []


BASES = [{"position": {"base": 100.0}}, {"position": {"base": 5000.0}}, {}]
"""Layers that rotate at bases of their own."""
ATTENDING = ("rerope", "leaky_rerope", "lambda_window", "streaming", "external_memory")
"""Context methods that choose scores; with windows as long as the text they are the model itself."""


def _wide(name):
    options = {"window": 400, "limit": 400} if name == "lambda_window" else {"window": 400}
    method = registry().get("context", name)
    return method(method.Config(**options))


@pytest.mark.parametrize("pattern", [BASES, WINDOWS], ids=["bases", "windows"])
@pytest.mark.parametrize("name", ATTENDING)
@torch.no_grad()
def test_context_methods_leave_every_layer_its_own_rotations_and_windows(pattern, name):
    model, ids = _deep(pattern), torch.arange(50)[None] * 7 % 64
    wanted = model(ids).logits
    applied = _wide(name).apply(model)
    torch.testing.assert_close(applied(ids).logits, wanted, rtol=1e-4, atol=1e-4)
    cache, parts = applied.new_cache(), []
    for start, end in ((0, 30), (30, 31), (31, 50)):
        parts.append(applied(ids[:, start:end], past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_rotations_that_only_windows_have_are_not_stretched(tmp_path):
    """As transformers' Gemma 3, imported and not."""
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    from harness.model.checkpoint import import_checkpoint

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(**shape, sliding_window=12, layer_types=kinds, query_pre_attn_scalar=8)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    for parameter in theirs.parameters():
        parameter += 0.3 * torch.randn(parameter.shape)
    theirs.save_pretrained(tmp_path)
    ids = torch.arange(100)[None] * 7 % 64
    for name in ("yarn", "position_interpolation", "dynamic_ntk", "llama3"):
        method = registry().get("context", name)
        context = method(method.Config(factor=4.0))
        ours = context.apply(import_checkpoint(tmp_path))
        other = context.apply(AutoModelForCausalLM.from_pretrained(tmp_path).eval())
        torch.testing.assert_close(ours(ids).logits, other(ids).logits, rtol=1e-3, atol=1e-3)


STAGES = "stages=[corpus,tokenizer,tokens,pretrain,extend,evaluate]"


@pytest.mark.parametrize(
    ("context", "pattern", "message"),
    [
        ("rerope", "[{attention:{method:linear}},{}]", "chooses scores, and attention=linear has none"),
        ("streaming", "[{position:{method:alibi}},{}]", "rotary positions, and position=alibi has none"),
        ("yarn", "[{position:{method:alibi}}]", "model.layer_pattern leaves them to no layer"),
        ("yarn", "[{position:{method:rope_dynamic}},{}]", "those of position=rope_dynamic follow the length"),
    ],
)
def test_a_context_method_that_a_layer_cannot_have_is_refused_by_the_plan(context, pattern, message):
    found = problems(compose([f"context={context}", f"model.layer_pattern={pattern}", STAGES]))
    assert any(message in str(problem) for problem in found), found
    assert not problems(compose(["context=yarn", "model.layer_pattern=[{attention:{method:linear}},{}]"]))


@pytest.mark.parametrize("name", ["learned", "sinusoidal"])
def test_positions_that_are_added_to_embeddings_are_none_of_a_layer(name):
    found = problems(compose([f"model.layer_pattern=[{{position:{{method:{name}}}}},{{}}]"]))
    assert any("adds to the embeddings, which no single layer does" in str(problem) for problem in found)
