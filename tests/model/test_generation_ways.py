"""One model generates the same whatever cache keeps its prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from composed import tiny

from harness.ops.paged_cache import PagedCache
from harness.ops.state_cache import StateCache
from harness.ops.window_cache import WindowCache

GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
WINDOWS = {"layer_pattern": [{"attention": {"method": "sliding_window", "window": 4}}, {}]}
MODELS: dict[str, dict[str, Any]] = {
    **{
        name: {"position": name}
        for name in ("alibi", "learned", "relative_t5", "relative_xl", "xpos", "nope")
    },
    "windows": {"shape": WINDOWS},
    "windows_and_blocks": {"attention": "paged", "shape": WINDOWS},
    "experts": {"feed_forward": "moe_top_k"},
}


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 64, (3, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :1] = 0
    return ids, mask


def test_every_layer_keeps_its_past_as_its_own_attention_says() -> None:
    """Blocks where it pages, a window or a state where it has one."""
    shape = {
        "num_layers": 4,
        "layer_pattern": [*WINDOWS["layer_pattern"], {"attention": {"method": "linear"}}],
    }
    kinds = [type(layer) for layer in tiny(attention="paged", shape=shape).new_cache().layers]
    assert kinds == [WindowCache, PagedCache, StateCache, WindowCache]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_static_cache_and_none_give_what_a_growing_one_gives(name: str) -> None:
    model, (ids, mask) = tiny(**MODELS[name]), prompts()
    for beams in (1, 3):
        options = {**GREEDY, "attention_mask": mask, "num_beams": beams}
        wanted = model.generate(ids, **options)
        assert torch.equal(model.generate(ids, cache_implementation="static", **options), wanted), beams
        assert torch.equal(model.generate(ids, use_cache=False, **options), wanted), beams
