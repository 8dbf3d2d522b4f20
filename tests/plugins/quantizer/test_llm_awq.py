"""The benchmark's peer for AWQ computes what llm-awq's own code does."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from llm_awq import llm_awq

OWN = {
    (4, 4): (0.411211, 10.5383, 10.80782, 17.5633, 19.07924),
    (4, 3): (0.704415, 10.62709, 11.09384, 16.96707, 19.21722),
    (4, 2): (1.051375, 11.1028, 11.34247, 16.80421, 18.88374),
    (2, 4): (0.438810, 10.65663, 10.86241, 20.09079, 18.61236),
}
"""By key/value heads and bits, what auto_scale_block, apply_scale, auto_clip_block, apply_clip and
pseudo_quantize_tensor of mit-han-lab/llm-awq at d6e797a make of `planted` in groups of 16, driven block by
block as run_awq does, on a CPU: relative error of the logits, then norms of query and down projections."""
MACHINES = 2e-3
"""Its searches choose between scales and ranges that lose almost the same, and the rounding of a machine's
products decides: the same code on an AMD and an Intel CPU differs by up to 8e-4 of a number."""


def planted(kv_heads: int) -> Any:
    """A model whose activations have outliers."""
    model = tiny.llama(dim=128, kv_heads=kv_heads)
    with torch.no_grad():
        for block in model.model.layers:
            block.input_layernorm.weight[::8] *= 12
            block.post_attention_layernorm.weight[::8] *= 12
    return model


@pytest.mark.parametrize(("kv_heads", "bits"), OWN)
def test_scales_and_ranges_are_those_of_llm_awq(kv_heads: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, tiny.VOCABULARY, (16, 64), generator=generator)
    held_out = torch.randint(3, tiny.VOCABULARY, (4, 64), generator=generator)
    model = llm_awq(planted(kv_heads), rows.split(8), bits=bits, group=16)
    with torch.no_grad():
        exact = planted(kv_heads)(input_ids=held_out).logits
        error = (model(input_ids=held_out).logits - exact).norm() / exact.norm()
        blocks = model.model.layers
        queries = [block.self_attn.q_proj.weight.norm() for block in blocks]
        downs = [block.mlp.down_proj.weight.norm() for block in blocks]
    assert [float(x) for x in (error, *queries, *downs)] == pytest.approx(OWN[kv_heads, bits], rel=MACHINES)
