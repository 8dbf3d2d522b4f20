"""Adapters on Hugging Face families whose layers are named and stored otherwise than Llama's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness import EffectError
from harness.compose import compose
from harness.conformance.causal import logits, tokens
from harness.conformance.test_peft import train_a_little


def gpt2() -> Any:
    """Conv1D layers, learned positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    return GPT2LMHeadModel(config).eval()


def neox() -> Any:
    """One layer for queries, keys and values."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return GPTNeoXForCausalLM(config).eval()


def mamba() -> Any:
    """No attention; kernels read some of its layers' weights."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    return MambaForCausalLM(
        MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
    ).eval()


@pytest.mark.parametrize("build", [gpt2, neox, mamba])
@pytest.mark.parametrize("name", ["full", "lora", "prompt_tuning", "p_tuning", "bitfit"])
def test_it_trains_on_other_families(name: str, build: Any) -> None:
    options: dict[str, Any] = {}
    if (name, build) == ("lora", mamba):
        options = {"target_modules": ["in_proj", "x_proj"], "rank": 2, "alpha": 32.0}
    method = tiny.choose("peft", name, **options).build()
    model = method.apply(build().requires_grad_(False))
    train_a_little(model)
    moved = logits(model, tokens())
    assert not torch.allclose(moved, logits(build(), tokens()), atol=1e-4)
    if name == "lora":
        assert torch.allclose(logits(method.merge(model), tokens()), moved, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "options", "exists"),
    [
        ("ia3", {}, "c_attn"),
        ("adapter_serial", {}, "c_proj"),
        ("llama_adapter", {}, "attn"),
        ("lora", {"target_modules": ["q_proj"]}, "c_fc"),
    ],
)
def test_names_of_another_family_list_what_exists(name: str, options: dict[str, Any], exists: str) -> None:
    with pytest.raises(EffectError, match=rf"matches no module; the model has .*{exists}"):
        tiny.choose("peft", name, **options).build().apply(gpt2())


@pytest.mark.parametrize(
    ("name", "build", "options", "said"),
    [
        ("oft", gpt2, {}, "layer transformer.h.0.attn.c_attn is transformers' Conv1D"),
        ("boft", gpt2, {}, "use peft=lora"),
        (
            "lora",
            mamba,
            {"rank": 2},
            r"never calls it: .*name others, peft.target_modules=\[in_proj, x_proj\]",
        ),
        ("vera", mamba, {"target_modules": ["dt_proj"]}, "dt_proj adapted, and a mamba never calls it"),
        ("prefix_tuning", mamba, {}, "mamba has layers of linear_attention; use peft=prompt_tuning"),
    ],
)
def test_what_a_family_does_not_allow_is_refused_by_the_plan(
    name: str, build: Any, options: dict[str, Any], said: str
) -> None:
    with torch.device("meta"):
        model = build()
    kind = tiny.choose("peft", name, **options)
    cell = compose(["model=pretrained", "model.path=DIR"])
    problems = list(kind.method.check(kind.config, cell, model))
    assert any(re.search(said, str(problem)) for problem in problems), problems


def test_the_names_of_gpt2_make_ia3_work() -> None:
    options: dict[str, Any] = {"target_modules": ["c_attn"], "feedforward_modules": []}
    model = tiny.choose("peft", "ia3", **options).build().apply(gpt2())
    train_a_little(model)
    assert not torch.allclose(logits(model, tokens()), logits(gpt2(), tokens()), atol=1e-5)
