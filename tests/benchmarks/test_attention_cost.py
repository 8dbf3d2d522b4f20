"""Time and memory of the attention variants over T, and of a paged cache beside a contiguous one.

Printed with `-s`; one layer, N = 4 heads of 64, one row, fp32.
"""

import time

import pytest
import torch
from composed import attention_layer, causal_view, tiny
from harness_plugins.attention.sparse_factorized import Pattern

from harness import PagedCache, PeakTracker

VARIANTS = {
    "full": ("full", {}),
    "sliding_window 256": ("sliding_window", {"window": 256}),
    "strided 128": ("sparse_factorized", {"stride": 128}),
    "fixed 128": ("sparse_factorized", {"stride": 128, "pattern": Pattern.fixed}),
    "linear": ("linear", {}),
    "retention": ("retention", {}),
}


def _layer(name):
    kind, options = VARIANTS[name]
    return attention_layer(kind, dim=256, head_dim=64, **options).float()


def _seconds(layer, length, *, repeats=2):
    """Best forward and backward of a few."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        x = torch.randn(1, length, 256, requires_grad=True)
        start = time.perf_counter()
        out = layer(x, causal_view(length))
        middle = time.perf_counter()
        out.sum().backward()
        best = [min(best[0], middle - start), min(best[1], time.perf_counter() - middle)]
    return best


def _peak(layer, length):
    x = torch.randn(1, length, 256, requires_grad=True)
    with PeakTracker([*layer.parameters(), x]) as tracker:
        layer(x, causal_view(length)).sum().backward()
    return tracker.peak


@pytest.mark.slow
def test_sparse_variants_are_cheaper_than_full_at_8192():
    found = {}
    for length in (1024, 8192):
        for name in VARIANTS:
            found[name, length] = _seconds(_layer(name), length)
            forward, backward = found[name, length]
            print(f"T={length:5} {name:20} forward {forward:.3f} s, backward {backward:.3f} s")
    for name in ("sliding_window 256", "strided 128", "fixed 128"):
        for direction in (0, 1):
            assert found[name, 8192][direction] < found["full", 8192][direction], name


@pytest.mark.slow
def test_the_windows_memory_grows_linearly():
    layer = _layer("sliding_window 256")
    short, long = _peak(layer, 2048), _peak(layer, 8192)
    print(f"sliding_window 256: {short / 2**20:.1f} MiB at 2048, {long / 2**20:.1f} MiB at 8192")
    assert long < 5 * short


@pytest.mark.slow
@torch.no_grad()
def test_a_paged_cache_wastes_little_and_keeps_up():
    lengths = [7, 30, 64, 100, 190, 256, 300, 511]
    cache = PagedCache(block_size=16)
    longest = max(lengths)
    cache.starts = [longest - length for length in lengths]
    cache.update(torch.zeros(8, 4, longest, 16), torch.zeros(8, 4, longest, 16))
    contiguous = len(lengths) * longest - sum(lengths)
    print(f"waste over mixed lengths: paged {cache.waste()}, contiguous {contiguous} token places")
    assert cache.waste() < 16 * len(lengths) < contiguous
    rates = {}
    for name in ("full", "paged"):
        model = tiny(attention=name, shape={"max_length": 512})
        ids = torch.ones(8, 128, dtype=torch.long)
        options = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "pad_token_id": 0}
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        rates[name] = 8 * 64 / (time.perf_counter() - start)
    print(f"decoding: contiguous {rates['full']:.0f}, paged {rates['paged']:.0f} tokens/s")
    assert rates["paged"] > 0.3 * rates["full"]
