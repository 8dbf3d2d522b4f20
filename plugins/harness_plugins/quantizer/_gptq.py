"""The arithmetic of GPTQ on one layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ._grid import Granularity, Grid, UniformConfig, make_grid


class Hessian:
    """Second moments of a layer's inputs, H = X^T X.

    Shapes: in x in, float64
    """

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.sum = torch.zeros(in_features, in_features, dtype=torch.float64, device=device)
        self.rows = 0

    def add(self, x: Tensor) -> None:
        """Inputs (rows x in) in float32; batches are summed in float64."""
        self.sum += x.T @ x
        self.rows += len(x)

    def mean(self) -> Tensor:
        """The moments of one row."""
        return self.sum / max(1, self.rows)


def output_error(hessian: Tensor, weight: Tensor, quantized: Tensor) -> float:
    """Squared error of a layer's outputs on the inputs behind H, relative to their squared norm."""
    difference, weight = (weight - quantized).double(), weight.double()
    error = ((difference @ hessian) * difference).sum()
    norm = ((weight @ hessian) * weight).sum()
    return float(error / norm.clamp(min=torch.finfo(torch.float64).tiny))


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of (H + damping * mean(diag H) * I)^-1 = U^T U; float64."""
    damped = hessian.double().clone()
    diagonal = damped.diagonal()
    shift = damping * diagonal.mean()
    diagonal += shift if float(shift) > 0 else 1.0
    lower = torch.linalg.cholesky(damped)
    del damped, diagonal  # at most two matrices beside the Hessian at any time
    inverse = torch.cholesky_inverse(lower)
    del lower
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


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
    for start in range(0, in_features, block_size):
        end = min(start + block_size, in_features)
        block, block_factor = rest_IO[start:end], factor[start:end, start:end]
        errors = torch.zeros_like(block)
        for i in range(end - start):
            column = start + i
            group = group_of[column]
            if grouped and not act_order and column % config.group_size == 0:
                group_OG = rest_IO[column : column + config.group_size].T
                fresh = make_grid(group_OG, config, exponent=grid.exponent)
                scale[group], zero[group] = fresh.scale[:, 0], fresh.zero[:, 0]
            w, s, z = block[i], scale[group], zero[group]
            q = (w / s).round_().add_(z).clamp_(0, top)
            codes_IO[column] = q
            errors[i] = (w - (q - z) * s) / block_factor[i, i]
            block[i + 1 :].addr_(block_factor[i, i + 1 :], errors[i], alpha=-1)
        rest_IO[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    in_place = torch.empty_like(weight)
    in_place[:, order] = codes_IO.T
    return in_place, replace(grid, scale=scale.T.contiguous(), zero=zero.T.contiguous())
