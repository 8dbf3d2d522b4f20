"""GPTQ on a 4096 x 4096 layer with 128 x 2048 calibration tokens: seconds and peak bytes, and a plain loop's.

The plain reference is the paper's algorithm as it reads: all that lies right of a column is updated at once.
The Hessian's sum is timed on TIMED of the sequences and multiplied, as each costs the same. Of the plain
loop the first COLUMNS are timed; column i of n updates n - i others, and the rest is reckoned from that.
"""

from __future__ import annotations

import time

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._gptq import gptq_codes
from harness_plugins.quantizer._grid import make_grid
from torch import Tensor

from harness import PeakTracker
from harness.ops.moments import Hessian

SIZE, SEQUENCES, LENGTH, TIMED, COLUMNS = 4096, 128, 2048, 2, 256
MIB = 2**20


def inputs(number: int) -> Tensor:
    """One sequence of correlated inputs."""
    generator = torch.Generator().manual_seed(number)
    common = torch.randn(LENGTH, 1, generator=generator)
    return torch.randn(LENGTH, SIZE, generator=generator) + common


def plain_sum(hessian: Tensor, x: Tensor, seen: int) -> Tensor:
    """The Hessian's running mean in float32."""
    hessian *= seen / (seen + 1)
    scaled = (2 / (seen + 1)) ** 0.5 * x
    hessian += scaled.T @ scaled
    return hessian


def plain_gptq(weight: Tensor, hessian: Tensor, bits: int) -> Tensor:
    """Values of the first COLUMNS after GPTQ, one column at a time."""
    rest, values = weight.clone(), torch.zeros(len(weight), COLUMNS)
    diagonal = torch.arange(len(hessian))
    hessian = hessian.clone()
    hessian[diagonal, diagonal] += 0.01 * hessian.diagonal().mean()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    grid = make_grid(weight, tiny.choose("quantizer", "gptq", bits=bits).config)
    for i in range(COLUMNS):
        codes = (torch.round(rest[:, i : i + 1] / grid.scale) + grid.zero).clamp(0, 2**bits - 1)
        values[:, i : i + 1] = (codes - grid.zero) * grid.scale
        error = (rest[:, i : i + 1] - values[:, i : i + 1]) / factor[i, i]
        rest[:, i:] -= error @ factor[i : i + 1, i:]
    return values


@pytest.mark.slow
def test_gptq_on_one_large_layer() -> None:
    weight = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0)) / SIZE**0.5
    config = tiny.choose("quantizer", "gptq", bits=4).config
    ours_H, plain_H = Hessian(SIZE, weight.device), torch.zeros(SIZE, SIZE)
    seconds = {"ours": 0.0, "plain": 0.0}
    for number in range(TIMED):
        x = inputs(number)
        start = time.perf_counter()
        ours_H.add(x)
        between = time.perf_counter()
        plain_sum(plain_H, x, number)
        seconds["plain"] += time.perf_counter() - between
        seconds["ours"] += between - start
    print()
    for name in seconds:
        seconds[name] *= SEQUENCES / TIMED
        print(f"{name:6} Hessian {seconds[name]:7.1f} s for {SEQUENCES} x {LENGTH} tokens ({TIMED} timed)")

    def ours() -> Tensor:
        codes, grid = gptq_codes(weight, ours_H.sum, config, damping=0.01, block_size=128, act_order=False)
        return grid.values(codes)

    share = sum(SIZE - i for i in range(COLUMNS)) / sum(range(1, SIZE + 1))
    first, columns = {}, {}
    for name, run in (("ours", ours), ("plain", lambda: plain_gptq(weight, plain_H, 4))):
        start = time.perf_counter()
        values = run()
        columns[name] = (time.perf_counter() - start) / (share if name == "plain" else 1.0)
        with PeakTracker([weight, ours_H.sum if name == "ours" else plain_H]) as tracker:
            run()  # once more: following every tensor takes longer than small products do
        first[name] = values[:, :COLUMNS]
        total = seconds[name] + columns[name]
        print(
            f"{name:6} columns {columns[name]:7.1f} s, in all {total:7.1f} s, "
            f"peak {tracker.peak / MIB:6.0f} MiB"
        )
    same = (first["ours"] == first["plain"]).float().mean().item()
    print(f"plain / ours: columns {columns['plain'] / columns['ours']:.2f}; {same:.2%} of codes are the same")
    assert same > 0.98
    assert columns["ours"] < columns["plain"]
