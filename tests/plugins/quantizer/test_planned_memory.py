"""The memory column of the survey's Table 10 from the shapes of LLaMA 7B and 13B."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.axes.quantizer import planned_bytes
from harness.stages.quantize import measured_bits

GIB = 2**30


def llama_shape(dim: int, layers: int, heads: int, ffn: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


SHAPES = {"7B": (4096, 32, 32, 11008), "13B": (5120, 40, 40, 13824)}


@pytest.mark.parametrize(
    ("size", "name", "table"),
    [
        ("7B", None, 12.58),
        ("7B", "llm_int8", 6.65),
        ("7B", "fp4", 3.94),
        ("13B", None, 24.40),
        ("13B", "llm_int8", 12.53),
        ("13B", "fp4", 7.34),
    ],
)
def test_planned_memory_is_within_two_percent_of_table_10(size: str, name: str | None, table: float) -> None:
    method = None if name is None else tiny.choose("quantizer", name).build()
    planned = planned_bytes(llama_shape(*SHAPES[size]), method) / GIB
    assert planned == pytest.approx(table, rel=0.02)


def masked() -> Any:
    """A model that keeps its causal mask, of as many bytes as its weights, in a buffer."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    config = GPTBigCodeConfig(vocab_size=64, n_positions=512, n_embd=64, n_layer=2, n_head=4)
    return GPTBigCodeForCausalLM(config)


@pytest.mark.parametrize("build", [tiny.llama, masked])
def test_the_plan_is_what_is_stored(build: Callable[[], Any]) -> None:
    model, method = build(), tiny.choose("quantizer", "rtn", bits=4).build()
    planned = planned_bytes(model, method, bits=32)
    stated = measured_bits(method.quantize(model, None), method)
    assert stated["model_bytes"] == pytest.approx(planned, rel=0.01)
