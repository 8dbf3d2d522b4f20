"""What a rotation does not leave as it was is refused by the plan, told from a model without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from composed import choose, tiny
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen3Config

from harness.model.turning import refusal
from harness.ops.rotation import probe
from harness.plan.make import make_plan
from harness.store import Store

ROTATION: Any = choose("rotation", "hadamard")
TOLD = ["scale=smoke", "quantizer=rtn", "rotation=hadamard"]


def refused(words: list[str], store: Path) -> str:
    (cell,) = make_plan([*TOLD, *words], store=Store(store), single=True).cells
    return cell.refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["norm_position=sandwich"], "5 norms that no linear layer reads"),
        (["norm=layernorm"], "no RMS norms over its"),
        (["position=learned"], "changes the logits"),
        (["feed_forward=moe_switch"], "changes the logits"),
        (["peft=adapter_serial"], "stands on the old"),
        (["peft=lora", "quantize.merge=false"], "stands on the old"),
    ],
)
def test_a_plan_refuses_what_would_change(words: list[str], message: str, tmp_path: Path) -> None:
    found = refused(words, tmp_path)
    assert message in found
    assert "rotation=none" in found


@pytest.mark.parametrize("words", [[], ["position=relative_xl"], ["attention=linear"], ["peft=lora"]])
def test_a_plan_takes_what_stays(words: list[str], tmp_path: Path) -> None:
    assert refused(words, tmp_path) == ""


def test_what_projects_distances_to_the_models_width_is_left_alone() -> None:
    """Its layer is as wide as the model, and writes nothing into the stream of tokens."""
    model: Any = tiny(position="relative_xl", shape={"init_std": 0.3}).double()
    before = probe(model)
    rotated = ROTATION.build().rotate(model)
    torch.testing.assert_close(probe(rotated), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LlamaConfig, ""),
        (Qwen3Config, ""),
        (Gemma2Config, "4 norms over its features in a layer"),
        (GPT2Config, "no RMS norms"),
    ],
)
def test_checkpoints_are_told_by_their_shapes(config: Any, message: str) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config(**small, num_key_value_heads=2, vocab_size=64, head_dim=8)
        )
    found = refusal(ROTATION, model)
    assert (message in found) if message else found == ""
