"""The memory column of the survey's Table 10 from the shapes of LLaMA 7B and 13B."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.axes.quantizer import planned_bytes

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


def test_the_plan_is_what_is_stored() -> None:
    model = tiny.llama()
    method = tiny.choose("quantizer", "rtn", bits=4).build()
    planned = planned_bytes(model, method, bits=32)
    method.quantize(model, None)
    tensors = [*model.parameters(), *(b for n, b in model.named_buffers() if "inv_freq" not in n)]
    assert sum(t.numel() * t.element_size() for t in tensors) == pytest.approx(planned, rel=0.01)
