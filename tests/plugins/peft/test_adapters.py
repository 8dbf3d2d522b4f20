"""Adapters against the peft library, and their counts and refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness import ConfigError, EffectError
from harness.conformance.causal import causal_model, logits, tokens


def apply(name: str, **options: Any) -> tuple[Any, Any]:
    method = tiny.choose("peft", name, **options).build()
    return method, method.apply(causal_model().requires_grad_(False))


def trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_llama_adapter_equals_the_peft_library_with_the_same_weights() -> None:
    from peft import AdaptionPromptConfig, get_peft_model

    _, ours = apply("llama_adapter", prompt_length=5, num_layers=2)
    config = AdaptionPromptConfig(adapter_len=5, adapter_layers=2, task_type="CAUSAL_LM")
    theirs = get_peft_model(causal_model(), config)
    mine = [m for m in ours.modules() if type(m).__name__ == "PromptedAttention"]
    other = [m for m in theirs.modules() if type(m).__name__ == "AdaptedAttention"]
    assert len(mine) == len(other) == 2
    with torch.no_grad():
        for a, b in zip(mine, other, strict=True):
            b.adaption_prompt.copy_(a.adaption_prompt)
            b.adaption_gate.fill_(0.7)
            a.adaption_gate.fill_(0.7)
    assert torch.allclose(logits(ours, tokens()), logits(theirs, tokens()), atol=1e-5)
    assert not torch.allclose(logits(ours, tokens()), logits(causal_model(), tokens()), atol=1e-3)


def with_open_gates(build: Any) -> tuple[Any, Any]:
    """A family's model, and the same with LLaMA-Adapter's gates opened a little."""
    model = build()
    method = tiny.choose("peft", "llama_adapter", prompt_length=5).build()
    adapted = method.apply(build())
    assert torch.equal(logits(adapted, tokens()), logits(model, tokens())), "closed gates add nothing"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("adaption_gate"):
                parameter.fill_(0.7)
    return model, adapted


SHAPE = {**tiny.SIZES, "bos_token_id": 1, "eos_token_id": 2}


def family(name: str, **more: Any) -> Any:
    """A small model of a Hugging Face family with weights of usual size."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **more})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.15)
    return model


def by_attention(model: Any, layer: Any, x_BTD: torch.Tensor, prompt_PD: torch.Tensor) -> torch.Tensor:
    """What a prompt adds, from the queries and the scale that the family hands to its attention function."""
    seen: dict[str, torch.Tensor] = {}
    module = sys.modules[type(layer).__module__]
    kept = module.eager_attention_forward

    def spy(self: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        seen["q"], seen["scale"] = query, kwargs["scaling"]
        return kept(self, query, key, value, mask, **kwargs)

    module.eager_attention_forward = spy
    try:
        positions = torch.arange(x_BTD.shape[1])[None]
        layer(
            hidden_states=x_BTD,
            position_embeddings=model.model.rotary_emb(x_BTD, positions),
            attention_mask=None,
        )
    finally:
        module.eager_attention_forward = kept
    q, dim = seen["q"], seen["q"].shape[-1]
    k, v = (
        f(prompt_PD).reshape(len(prompt_PD), -1, dim).transpose(0, 1) for f in (layer.k_proj, layer.v_proj)
    )
    k, v = (y.repeat_interleave(q.shape[1] // len(y), dim=0) for y in (k, v))
    mixed = (q @ k.transpose(-1, -2) * seen["scale"]).softmax(-1) @ v
    return torch.nn.functional.linear(mixed.transpose(1, 2).flatten(2), layer.o_proj.weight)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Llama", {"attention_bias": True}),
        ("StableLm", {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
        ("Cohere", {}),  # rotates neighbours
        ("Glm", {"partial_rotary_factor": 0.5}),  # rotates neighbours, half of a head
        ("Granite", {"attention_multiplier": 0.9}),
    ],
)
@torch.no_grad()
def test_llama_adapter_reads_the_queries_of_each_familys_own_attention(
    name: str, more: dict[str, Any]
) -> None:
    model, adapted = with_open_gates(lambda: family(name, **more))
    layer = next(m for m in adapted.modules() if type(m).__name__ == "PromptedAttention")
    x_BTD = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9)[None]
    turned = model.model.rotary_emb(x_BTD, positions)
    ours = layer.extra(x_BTD, (), {"position_embeddings": turned})
    theirs = 0.7 * by_attention(model, layer.base_layer, x_BTD, layer.adaption_prompt[0])
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "what"),
    [("Qwen3", "has k_norm, q_norm besides"), ("Olmo2", "has k_norm, q_norm"), ("Gemma2", "softcapping")],
)
def test_llama_adapter_refuses_attention_that_does_more_with_queries(name: str, what: str) -> None:
    from harness import IncompatibleError

    with pytest.raises(IncompatibleError, match=rf"{what}.*use peft=lora"):
        tiny.choose("peft", "llama_adapter").build().apply(family(name))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        # Llama of width 32, feed-forward 64, 2 layers: 4 attention maps 32x32, 3 of 32x64 in each layer.
        ("lora", {"rank": 4}, 2 * 4 * (4 * 64 + 3 * 96)),
        ("dora", {"rank": 4}, 2 * (4 * (4 * 64 + 3 * 96) + 4 * 32 + 64 + 64 + 32)),
        ("adalora", {"rank": 4, "target_rank": 2}, 2 * (4 * (4 * 64 + 3 * 96) + 7 * 4)),
        ("ia3", {}, 2 * (32 + 32 + 64)),
        ("bitfit", {}, 2 * (4 * 32 + 64 + 64 + 32)),
        ("prompt_tuning", {"num_virtual_tokens": 5}, 5 * 32),
        ("adapter_serial", {"bottleneck": 3}, 2 * 2 * (2 * 32 * 3 + 3 + 32)),
        ("adapter_parallel", {"bottleneck": 3}, 2 * (2 * 32 * 3 + 3 + 32)),
        ("llama_adapter", {"prompt_length": 5}, 2 * (5 * 32 + 1)),
    ],
)
def test_counts_by_hand(name: str, options: dict[str, Any], count: int) -> None:
    method, model = apply(name, **options)
    assert trained(model) == count
    assert method.trainable_parameters(causal_model()) == count


@pytest.mark.parametrize("name", ["lora", "ia3", "adapter_serial", "llama_adapter"])
def test_targets_that_match_nothing_list_what_exists(name: str) -> None:
    options: dict[str, Any] = {"target_modules": ["query"]}
    if name == "ia3":
        options["feedforward_modules"] = []
    with pytest.raises(EffectError, match=r"matches no module; the model has .*q_proj"):
        apply(name, **options)


def test_targets_that_are_no_linear_layers_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"self_attn is no layer that can be adapted; those are .*down_proj"
    ):
        apply("lora", target_modules=["q_proj", "self_attn"])


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "ia3", "adapter_serial", "llama_adapter"])
def test_one_name_that_matches_nothing_is_an_error_beside_those_that_do(name: str) -> None:
    there = {"adapter_serial": "mlp", "llama_adapter": "self_attn"}.get(name, "v_proj")
    options: dict[str, Any] = {"target_modules": [there, "qproj"]}
    if name == "ia3":
        options["feedforward_modules"] = []
    with pytest.raises(EffectError, match=r": qproj matches no module; the model has .*q_proj"):
        apply(name, **options)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_head_and_embeddings_are_adapted_saved_and_merged(name: str, tmp_path: Path) -> None:
    method, model = apply(name, rank=4, target_modules=["lm_head", "embed_tokens", "q_proj"])
    # Vocabulary 64, width 32, two layers; DoRA has a magnitude for each output.
    magnitudes = (64 + 32 + 2 * 32) if name == "dora" else 0
    assert trained(model) == 4 * (64 + 32) * 2 + 2 * 4 * 64 + magnitudes
    assert method.trainable_parameters(causal_model()) == trained(model)
    assert torch.allclose(logits(model, tokens()), logits(causal_model(), tokens()), atol=1e-6)
    for key in ("lm_head", "embed_tokens"):
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if key in parameter_name and parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        method.save(model, tmp_path / key)
        again = method.load(causal_model(), tmp_path / key, trainable=False)
        assert torch.allclose(logits(again, tokens()), logits(model, tokens()), atol=1e-6)
    saved = sum(file.stat().st_size for file in (tmp_path / "lm_head").glob("*.safetensors"))
    assert saved < 4 * trained(model) + 8192, "the base's own embeddings are not in the adapter"
    moved = logits(model, tokens())
    assert not torch.allclose(moved, logits(causal_model(), tokens()), atol=1e-3)
    assert torch.allclose(logits(method.merge(model), tokens()), moved, atol=2e-5)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_weights_that_head_and_embeddings_share_are_not_adapted(target: str) -> None:
    from harness import IncompatibleError

    model = causal_model()
    model.lm_head.weight = model.get_input_embeddings().weight
    method = tiny.choose("peft", "lora", target_modules=["q_proj", target]).build()
    with pytest.raises(IncompatibleError, match=f"{target} shares its weight .*tie_embeddings=false"):
        method.apply(model)


def test_embeddings_are_refused_where_the_library_cannot_adapt_them() -> None:
    with pytest.raises(ConfigError, match="embed_tokens is no layer that can be adapted"):
        apply("adalora", target_modules=["embed_tokens"])


def test_a_rank_above_the_layer_is_refused_when_applied() -> None:
    with pytest.raises(ConfigError, match="above the size of layer"):
        apply("lora", rank=64)


def adalora_run(steps: int, *, resume_at: int | None = None, **options: Any) -> Any:
    """AdaLoRA tuned for some steps by Adam, whose momentum moves what was pruned."""
    method, model = apply("adalora", rank=4, target_rank=2, **options)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        if step == resume_at:  # the process is new: it has what a checkpoint holds
            weights, kept = model.state_dict(), method.training_state()
            method, model = apply("adalora", rank=4, target_rank=2, **options)
            model.load_state_dict(weights)
            method.load_training_state(kept)
            optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        ids = tokens(step)
        out = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(out.flatten(0, 1), ids.flatten()).backward()
        method.on_step(step, steps)
        assert float(method.on_gradients(model, step)["orthogonality"]) >= 0
        optimizer.step()
        optimizer.zero_grad()
    return method, model


@pytest.mark.parametrize(
    ("steps", "resume_at"), [(1, None), (2, None), (3, None), (7, None), (30, None), (30, 10), (30, 28)]
)
def test_adalora_ends_at_the_asked_rank_however_long_the_stage_is(
    steps: int, resume_at: int | None, tmp_path: Path
) -> None:
    method, model = adalora_run(steps, resume_at=resume_at)
    method.save(model, tmp_path)
    values = [p for n, p in model.named_parameters() if "lora_E" in n]
    kept = sum(int((p != 0).sum()) for p in values)
    assert kept == 2 * len(values), "ranks left, summed over layers (Zhang et al. 2023, eq. 12)"
    again = method.load(causal_model(), tmp_path, trainable=False)
    # In double: what is left is summed in another order.
    assert torch.allclose(logits(again.double(), tokens()), logits(model.double(), tokens()))


def test_adalora_that_keeps_its_rank_prunes_nothing() -> None:
    method = tiny.choose("peft", "adalora", rank=2, target_rank=2).build()
    model = method.apply(causal_model())
    model(input_ids=tokens()).logits.sum().backward()
    method.on_step(0, 1)
    method.on_gradients(model, 0)
    assert not model.peft_config["default"].rank_pattern


def test_lora_on_packed_weights_trains_and_cannot_be_merged() -> None:
    from harness import IncompatibleError

    model = tiny.choose("quantizer", "rtn").build().quantize(causal_model(), None)
    method = tiny.choose("peft", "lora").build()
    model = method.apply(model.requires_grad_(False))
    model(input_ids=tokens()).logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with pytest.raises(IncompatibleError, match="cannot be merged into packed weights"):
        method.merge(model)
