"""Our transformer against transformers' classes on the same weights: steps, memory, decoding, long texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import in_turn, median_ratio, processor_seconds, show
from composed import choose, tiny
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from harness import PeakTracker
from harness.model.checkpoint import export_checkpoint, import_checkpoint
from harness.ops.decode import new_cache, next_logits
from harness.training.measure import resident_bytes

pytestmark = pytest.mark.slow

SHAPE = {"vocab_size": 2048, "dim": 256, "num_layers": 4, "num_heads": 4, "head_dim": 64, "ffn_dim": 688}
LENGTHS = (512, 2048)
LEVEL = 0.98
"""Of the peer's speed at least."""


def pair(folder: Path, length: int) -> dict[str, Any]:
    """A model of ours, and transformers' Llama with the same weights."""
    ours = tiny(shape={**SHAPE, "max_length": length, "init_std": 0.02})
    export_checkpoint(ours, folder, model_type="llama")
    return {"transformers' Llama": LlamaForCausalLM.from_pretrained(folder).eval(), "harness": ours}


def step(model: Any, ids: torch.Tensor) -> None:
    """What training does to a model, without the optimizer."""
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()


@torch.inference_mode()
def decode(model: Any, ids: torch.Tensor, steps: int = 32) -> None:
    """A prompt, then one token after another on its cache."""
    out = model(ids, use_cache=True, logits_to_keep=1)
    for _ in range(steps):
        chosen = out.logits[:, -1:].argmax(-1)
        out = model(chosen, past_key_values=out.past_key_values, use_cache=True)


def compare(title: str, act: Callable[..., None], tmp_path: Path, rows: int) -> None:
    table, ratios = [], []
    for length in LENGTHS:
        models = pair(tmp_path / str(length), length + 64)
        ids = torch.randint(0, SHAPE["vocab_size"], (rows, length))
        actions = {name: lambda model=model, ids=ids: act(model, ids) for name, model in models.items()}
        found = in_turn(actions, rounds=5)
        ratios.append(median_ratio(found, "transformers' Llama", "harness"))
        table.append((f"T = {length}", min(found["transformers' Llama"]), min(found["harness"]), ratios[-1]))
    show(title, ("length", "transformers s", "harness s", "times transformers"), table)
    assert min(ratios) > LEVEL


def test_a_training_step_is_as_fast_as_transformers_llama(tmp_path: Path) -> None:
    compare("A training step, processor seconds", step, tmp_path, 2)


def test_decoding_is_as_fast_as_transformers_llama(tmp_path: Path) -> None:
    compare("A prompt and 32 tokens, processor seconds", decode, tmp_path, 2)


@torch.inference_mode()
def test_a_single_token_is_as_fast_as_transformers_llama(tmp_path: Path) -> None:
    """Without a prompt, whose products hide what a step costs besides."""
    table, ratios = [], []
    for length in LENGTHS:
        ids, actions = torch.randint(0, SHAPE["vocab_size"], (2, length)), {}
        for name, model in pair(tmp_path / str(length), length + 2048).items():
            cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values

            def steps(model: Any = model, cache: Any = cache, ids: torch.Tensor = ids) -> None:
                for place in range(32):
                    model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)

            actions[name] = steps
        found = in_turn(actions, rounds=25)
        ratios.append(median_ratio(found, "transformers' Llama", "harness"))
        each = [1000 * min(seconds) / 32 for seconds in found.values()]
        table.append((f"after {length}", *each, ratios[-1]))
    show("A single token, ms", ("tokens", "transformers", "harness", "times transformers"), table)
    assert min(ratios) > LEVEL


def test_a_training_step_needs_no_more_memory_than_transformers_llama(tmp_path: Path) -> None:
    ids, peaks = torch.randint(0, SHAPE["vocab_size"], (1, 4096)), {}
    for name, model in pair(tmp_path, 4096).items():
        step(model, ids)  # gradients are there, as in every step but the first
        with PeakTracker([*model.parameters(), *(p.grad for p in model.parameters())]) as tracker:
            step(model, ids)
        peaks[name] = tracker.peak
    rows = [(name, f"{peak / 2**20:.1f}") for name, peak in peaks.items()]
    show("Peak of a training step at T = 4,096", ("model", "MiB"), rows)
    assert peaks["harness"] < 1.001 * peaks["transformers' Llama"]


def test_an_imported_t5_decodes_as_fast_as_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 2048, "d_model": 256, "d_kv": 64, "d_ff": 688, "num_layers": 4, "num_heads": 4}
    config = T5Config(**shape, eos_token_id=None, pad_token_id=0, decoder_start_token_id=0)
    theirs = T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    source = torch.randint(2, 2048, (2, 256))
    options = {"max_new_tokens": 48, "min_new_tokens": 48, "do_sample": False}
    models = {"transformers' T5": theirs, "harness": import_checkpoint(tmp_path)}
    found = in_turn(
        {name: lambda model=model: model.generate(source, **options) for name, model in models.items()},
        rounds=5,
    )
    ratio = median_ratio(found, "transformers' T5", "harness")
    show("48 tokens from a source of 256", ("model", "s"), [(n, min(s)) for n, s in found.items()])
    print(f"\nharness / transformers' T5: {ratio:.2f}")
    assert ratio > 0.9  # 0.98


@torch.inference_mode()
def test_relative_positions_are_decoded_at_about_half_the_speed_of_rotary_ones() -> None:
    """Single tokens after a prompt of 1,024: each reads its terms of all distances from what is kept."""
    ids, actions = torch.randint(0, SHAPE["vocab_size"], (2, 1024)), {}
    for name in ("rope", "relative_xl"):
        model = tiny(position=name, shape={**SHAPE, "max_length": 1400})
        cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values

        def steps(model: Any = model, cache: Any = cache) -> None:
            for place in range(32):
                model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)

        actions[name] = steps
    found = in_turn(actions, rounds=5)
    ratio = median_ratio(found, "rope", "relative_xl")
    rows = [(name, 1000 * min(seconds) / 32) for name, seconds in found.items()]
    show("A token after 1,024 others, two rows", ("position", "ms"), rows)
    print(f"\nrelative_xl / rope: {ratio:.2f}")
    assert ratio > 0.45  # 0.54: two products a layer for one


LONG = 32_000
SMOLLM2 = {"vocab_size": 49152, "dim": 576, "num_layers": 30, "num_heads": 9, "head_dim": 64, "ffn_dim": 1536}


@pytest.mark.parametrize("name", ["streaming", "lambda_window"])
def test_a_long_text_is_read_in_bounded_memory_at_a_constant_rate(name: str) -> None:
    """The shape of SmolLM2-135M, 32,000 tokens in parts, then single tokens at both ends."""
    torch.manual_seed(0)
    model: Any = tiny(
        attention=("grouped_query", {"num_kv_heads": 3}),
        shape={**SMOLLM2, "max_length": 2048, "init_std": 0.02},
    )
    method: Any = choose("context", name, window=1020).build()
    model = method.apply(model)
    ids = torch.randint(0, SMOLLM2["vocab_size"], (1, LONG + 64))
    cache = new_cache(model)

    def read(start: int, end: int) -> float:
        mask = torch.ones(1, end, dtype=torch.long)
        seconds: float = processor_seconds(lambda: next_logits(model, ids[:, start:end], mask, cache))
        return seconds

    seconds = [read(start, start + 1000) for start in range(0, LONG, 1000)]
    single = [read(at, at + 1) for at in range(LONG, LONG + 16)]
    early, late = sum(seconds[2:6]) / 4, sum(seconds[-4:]) / 4
    rows = [
        ("ms a token from 2,000 to 6,000", early),
        (f"ms a token to {LONG:,}", late),
        ("ms a single token there", 1000 * min(single)),
        ("MiB of the process at most", resident_bytes() / 2**20),
    ]
    show(f"{LONG:,} tokens, {name}", ("what", "number"), rows)
    assert late < 1.2 * early
    assert resident_bytes() < 2 * 10**9
