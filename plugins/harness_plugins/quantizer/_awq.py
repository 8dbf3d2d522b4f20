"""The arithmetic of AWQ on one layer: a factor for each input, then a range for each group of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ._grid import Granularity, Grid, UniformConfig, grouped_weights, span

SMALLEST, LARGEST = 1e-4, 6e4
"""Factors stay within what float16 holds in full precision."""


def input_factors(mean: Tensor, alpha: float) -> Tensor:
    """s_j = mean|X_j|^alpha over sqrt(max s * min s), rounded to float16, in which it is stored (eq. 5)."""
    factors = mean.clamp(min=SMALLEST) ** alpha
    factors = factors / (factors.max() * factors.min()).sqrt()
    return factors.clamp(SMALLEST, LARGEST).half().float()


def squared_error(moments: Tensor, difference: Tensor) -> float:
    """Squared error of a layer's outputs whose weight differs by `difference` (out x in)."""
    return float(((difference @ moments) * difference).sum())


def clipped_grid(weight: Tensor, moments: Tensor, config: UniformConfig, points: int) -> Grid:
    """A grid for each group, over the share of its range down to half with least error of its own outputs.

    The error of a group counts its own inputs alone, as in llm-awq's auto_clip. A clipped range is
    [-c max|w|, c max|w|] within the group's own.
    Shapes: weight out x in, moments in x in
    """
    grouped = grouped_weights(weight, config)
    groups = grouped.shape[1]
    size = moments.shape[0] // config.groups(weight.shape[1])
    blocks = moments.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2)
    blocks = blocks.permute(2, 0, 1)  # groups x size x size
    low, high = grouped.aminmax(dim=-1)
    largest = torch.maximum(-low, high)
    best = span(low, high, config)
    least = torch.full_like(best.scale, torch.inf)
    for point in range(points + 1):
        reach = largest * (1 - 0.5 * point / max(1, points))
        grid = span(torch.maximum(low, -reach), torch.minimum(high, reach), config, exponent=best.exponent)
        difference = (weight - grid.nearest(weight)).unflatten(-1, (-1, size)).transpose(0, 1)
        errors = ((difference @ blocks) * difference).sum(-1).T  # out x groups
        if config.granularity is Granularity.tensor:
            errors = errors.sum().reshape(1, groups)
        better = errors < least
        least = torch.where(better, errors, least)
        best = Grid(
            scale=torch.where(better, grid.scale, best.scale),
            zero=torch.where(better, grid.zero, best.zero),
            bits=config.bits,
            exponent=best.exponent,
        )
    return best
