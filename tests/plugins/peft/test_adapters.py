"""Adapters against the peft library, and their counts and refusals."""

from __future__ import annotations

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
    with pytest.raises(ConfigError, match=r"are no linear layers; linear layers are .*down_proj"):
        apply("lora", target_modules=["self_attn"])


def test_a_rank_above_the_layer_is_refused_when_applied() -> None:
    with pytest.raises(ConfigError, match="above the size of layer"):
        apply("lora", rank=64)


def test_adalora_prunes_to_its_budget() -> None:
    method, model = apply("adalora", rank=4, target_rank=2, warmup_steps=1, total_steps=10, prune_every=1)
    for step in range(10):
        ids = tokens(step)
        out = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(out.flatten(0, 1), ids.flatten()).backward()
        facts = method.on_gradients(model, step)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad and p.grad is not None:
                    p -= 0.1 * p.grad
                    p.grad = None
        assert float(facts["orthogonality"]) >= 0
    values = [p for n, p in model.named_parameters() if "lora_E" in n]
    kept = sum(int((p != 0).sum()) for p in values)
    assert kept <= 2.5 * len(values), "about target_rank singular values are left a layer"


def test_lora_on_packed_weights_trains_and_cannot_be_merged() -> None:
    from harness import IncompatibleError

    model = tiny.choose("quantizer", "rtn").build().quantize(causal_model(), None)
    method = tiny.choose("peft", "lora").build()
    model = method.apply(model.requires_grad_(False))
    model(input_ids=tokens()).logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with pytest.raises(IncompatibleError, match="cannot be merged into packed weights"):
        method.merge(model)
