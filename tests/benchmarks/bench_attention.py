"""Time and memory of the attention variants over T: one layer, one row, N = 4 heads of 64, fp32, causal."""

import pytest
import torch
from bench import in_turn, median_ratio, processor_seconds, show
from composed import attention_layer, causal_view, tiny
from harness_plugins.attention.sparse_factorized import Pattern

from harness import PeakTracker

pytestmark = pytest.mark.slow

VARIANTS = {
    "full": ("full", {}),
    "grouped_query, 2 heads": ("grouped_query", {"num_kv_heads": 2}),
    "multi_query": ("multi_query", {}),
    "sliding_window 256": ("sliding_window", {"window": 256}),
    "strided 128": ("sparse_factorized", {"stride": 128}),
    "fixed 128": ("sparse_factorized", {"stride": 128, "pattern": Pattern.fixed}),
    "linear": ("linear", {}),
    "retention": ("retention", {}),
    "gated_linear": ("gated_linear", {}),
    "mamba2": ("mamba2", {}),
}
SPARSE = ("sliding_window 256", "strided 128", "fixed 128")
LENGTHS = (2048, 4096, 8192)


def _layer(name):
    kind, options = VARIANTS[name]
    return attention_layer(kind, dim=256, head_dim=64, **options).float()


def _seconds(layer, length):
    """The best forward and backward of two."""
    best = [float("inf"), float("inf")]
    for _ in range(2):
        x = torch.randn(1, length, 256, requires_grad=True)
        out = []
        forward = processor_seconds(lambda x=x, out=out: out.append(layer(x, causal_view(length)).sum()))
        backward = processor_seconds(out[0].backward)
        best = [min(best[0], forward), min(best[1], backward)]
    return best


def _peak(layer, length):
    """Bytes alive at once beyond the weights."""
    x = torch.randn(1, length, 256, requires_grad=True)
    with PeakTracker([x]) as tracker:
        layer(x, causal_view(length)).sum().backward()
    return tracker.peak


def test_sparse_variants_are_cheaper_than_full_and_a_windows_memory_is_linear():
    time, memory, rows = {}, {}, []
    for length in LENGTHS:
        for name in VARIANTS:
            layer = _layer(name)
            time[name, length] = forward, backward = _seconds(layer, length)
            memory[name, length] = _peak(layer, length) / 2**20
            cached = 8 * layer.kv_heads * 64 if not layer.recurrent else "state"
            rows.append((name, length, forward, backward, f"{memory[name, length]:.1f}", cached))
    columns = ("attention", "T", "forward s", "backward s", "peak MiB", "cache bytes/token")
    show("Attention on the CPU, processor seconds", columns, rows)
    longest = LENGTHS[-1]
    for name in SPARSE:
        for direction in (0, 1):
            assert time[name, longest][direction] < 0.8 * time["full", longest][direction], name
    first, middle, last = (memory["sliding_window 256", length] for length in LENGTHS)
    # Linear: twice as many tokens add twice as much; quadratic growth would add four times.
    assert last - middle < 2.2 * (middle - first)


DOCUMENTED = ("full", "sliding_window 256", "linear", "retention", "gated_linear", "mamba2")
"""Variants that pretraining on packed documents must not slow down."""


def test_documents_cost_a_training_step_at_most_a_sixth_more():
    """T = 4096 in documents of 300 tokens against one document, in turn; the rest of the model included."""
    ids, documents = torch.randint(0, 64, (1, 4096)), (torch.arange(4096) // 300)[None]
    rows = []
    for name in DOCUMENTED:
        shape = {"dim": 128, "head_dim": 32, "ffn_dim": 256, "max_length": 4096}
        model = tiny(attention=VARIANTS[name], shape=shape).train()

        def step(model=model, **inputs):
            model.zero_grad()
            model(ids, **inputs).logits.square().mean().backward()

        actions = {"one": step, "many": lambda step=step: step(document_ids=documents)}
        rows.append((name, median_ratio(in_turn(actions, rounds=5), "many", "one")))
    show("Documents over none, processor seconds of a training step", ("attention", "ratio"), rows)
    for name, ratio in rows:
        assert ratio <= 1.15, name
