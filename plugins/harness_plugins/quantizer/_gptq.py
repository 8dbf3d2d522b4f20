"""The arithmetic of GPTQ on one layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness import compensate, inverse_factor

from ._grid import Granularity, Grid, UniformConfig, make_grid


def gptq_codes(
    weight: Tensor,
    hessian: Tensor,
    config: UniformConfig,
    *,
    damping: float,
    block_size: int,
    act_order: bool,
) -> tuple[Tensor, Grid]:
    """Codes that compensate each column's rounding error in the columns after it (algorithm 1).

    Grids of groups are set when their first column is reached; with `act_order` they are set up front,
    so that columns can be met in the order of falling diagonal and stored in place.
    Shapes: weight out x in, float32; hessian in x in -> codes out x in
    """
    in_features = weight.shape[1]
    grid = make_grid(weight, config)
    order = torch.arange(in_features, device=weight.device)
    if act_order:
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        hessian = hessian[order][:, order]
    factor = inverse_factor(hessian, damping).to(weight.dtype)
    rest_IO = weight.T[order].contiguous()  # a column of the weight is a row here: it lies together
    grouped = config.granularity is Granularity.group
    group_of = (order // config.group_size if grouped else torch.zeros_like(order)).tolist()
    scale, zero = grid.scale.T.contiguous(), grid.zero.T.contiguous()
    codes_IO = torch.empty_like(rest_IO)
    top = 2**config.bits - 1
    if grouped:  # a group lies within one block, whose columns are up to date
        block_size = -(-block_size // config.group_size) * config.group_size

    def settle(column: int) -> Tensor:
        group = group_of[column]
        if grouped and not act_order and column % config.group_size == 0:
            group_OG = rest_IO[column : column + config.group_size].T
            fresh = make_grid(group_OG, config, exponent=grid.exponent)
            scale[group], zero[group] = fresh.scale[:, 0], fresh.zero[:, 0]
        s, z = scale[group], zero[group]
        q = (rest_IO[column] / s).round_().add_(z).clamp_(0, top)
        codes_IO[column] = q
        return (q - z) * s

    compensate(rest_IO, factor, settle, block_size=block_size)
    in_place = torch.empty_like(weight)
    in_place[:, order] = codes_IO.T
    return in_place, replace(grid, scale=scale.T.contiguous(), zero=zero.T.contiguous())
