"""A paged cache beside a contiguous one over prompts of mixed lengths: places held, and tokens a second."""

import statistics

import pytest
import torch
from bench import in_turn, median_ratio, show
from composed import tiny

from harness.evaluation.generation import pad_left

pytestmark = pytest.mark.slow

LENGTHS = (7, 30, 64, 100, 150, 190, 220, 256)
NEW = 32
SHAPE = {"max_length": 512, "dim": 128, "num_layers": 4, "head_dim": 32, "ffn_dim": 344, "vocab_size": 1024}


def _models():
    return {"contiguous": tiny(attention="full", shape=SHAPE), "paged": tiny(attention="paged", shape=SHAPE)}


def _prompts(lengths):
    generator = torch.Generator().manual_seed(0)
    return pad_left([torch.randint(1, 1024, (n,), generator=generator).tolist() for n in lengths], 0)


@torch.no_grad()
def _held(model, lengths, beams):
    """Token places of one layer's keys after the prompts were read and repeated for each beam."""
    ids, mask = _prompts(lengths)
    cache = model(ids, attention_mask=mask, use_cache=True).past_key_values
    cache.batch_repeat_interleave(beams)
    model(torch.ones(len(ids) * beams, 1, dtype=torch.long), past_key_values=cache)
    keys = cache.layers[0].keys
    return keys.shape[1] if hasattr(cache.layers[0], "table") else keys.shape[0] * keys.shape[2]


def test_a_paged_cache_holds_less_than_a_contiguous_one():
    rows, found = [], {}
    for what, lengths, beams in (
        ("equal lengths", (256,) * 8, 1),
        ("mixed lengths", LENGTHS, 1),
        ("mixed lengths, 4 beams", LENGTHS, 4),
    ):
        # A beam needs the prompt, which its siblings share, and one token of its own.
        needed = sum(lengths) + beams * len(lengths)
        for name, model in _models().items():
            held = found[what, name] = _held(model, lengths, beams)
            rows.append((what, name, held, needed, f"{1 - needed / held:.1%}"))
    show("Token places held", ("batch", "cache", "held", "needed", "waste"), rows)
    assert found["mixed lengths", "paged"] <= sum(LENGTHS) + 17 * len(LENGTHS)
    assert found["mixed lengths", "paged"] < 0.7 * found["mixed lengths", "contiguous"]
    assert found["mixed lengths, 4 beams", "paged"] < 0.4 * found["mixed lengths, 4 beams", "contiguous"]


def test_a_paged_cache_keeps_up_with_a_contiguous_one():
    rows, ratios = [], {}
    for what, lengths, beams in (
        ("equal lengths", (256,) * 8, 1),
        ("mixed lengths", LENGTHS, 1),
        ("mixed lengths, 4 beams", LENGTHS, 4),
    ):
        ids, mask = _prompts(lengths)
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "num_beams": beams}

        def draw(model, ids=ids, mask=mask, options=options):
            return model.generate(ids, attention_mask=mask, pad_token_id=0, **options)

        actions = {name: lambda model=model, draw=draw: draw(model) for name, model in _models().items()}
        found = in_turn(actions, rounds=5)
        ratios[what] = median_ratio(found, "contiguous", "paged")
        for name, seconds in found.items():
            rate = len(ids) * NEW / statistics.median(seconds)
            rows.append((what, name, f"{rate:.0f}", f"{ratios[what]:.2f}" if name == "paged" else ""))
    show(
        "Generation, tokens a processor second",
        ("batch", "cache", "tokens/s", "paged / contiguous"),
        rows,
    )
    # Gathered keys cost what a contiguous cache's concatenation costs, and lie as that would leave them.
    assert min(ratios.values()) > 0.75
