"""Second moments of a layer's inputs, and changing its weights column by column with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.errors import ConfigError


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


class SquaredNorms:
    """Sum of the squares of each of a layer's inputs: the diagonal of `Hessian`, at a fraction of its cost.

    Shapes: in, float64
    """

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.sum = torch.zeros(in_features, dtype=torch.float64, device=device)
        self.rows = 0

    def add(self, x: Tensor) -> None:
        """Inputs (rows x in) in float32."""
        self.sum += x.square().sum(0)
        self.rows += len(x)


def output_error(hessian: Tensor, weight: Tensor, changed: Tensor) -> float:
    """Squared error of a layer's outputs on the inputs behind H, relative to their squared norm."""
    difference, weight = (weight - changed).double(), weight.double()
    error = ((difference @ hessian) * difference).sum()
    norm = ((weight @ hessian) * weight).sum()
    return float(error / norm.clamp(min=torch.finfo(torch.float64).tiny))


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of (H + damping * mean(diag H) * I)^-1 = U^T U; float64.

    Where all inputs were zero, H counts as the identity.
    Raises: ConfigError where the damped Hessian is singular
    """
    damped = hessian.double().clone()
    diagonal = damped.diagonal()
    mean = float(diagonal.mean())
    diagonal += damping * mean if mean > 0 else 1.0
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise ConfigError(
            f"the moments of a layer's {len(damped)} inputs are singular with damping={damping:g}; raise it "
            "(0.01 is usual), or calibrate on more tokens"
        )
    del damped, diagonal  # at most two matrices beside the Hessian at any time
    inverse = torch.cholesky_inverse(lower)
    del lower
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def compensate(rest_IO: Tensor, factor: Tensor, settle: Callable[[int], Tensor], *, block_size: int) -> None:
    """Settle one column of a weight after another, its error made good in those that follow; in place.

    `settle(column)` says which values the column takes; it may read the columns from there on, which hold
    what was made good so far (all columns of a block when its first is settled).
    Shapes: rest_IO in x out (a column of the weight lies together); factor in x in, of `inverse_factor`
    Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1
    """
    in_features = len(rest_IO)
    for start in range(0, in_features, block_size):
        end = min(start + block_size, in_features)
        block, block_factor = rest_IO[start:end], factor[start:end, start:end]
        errors = torch.zeros_like(block)
        for i in range(end - start):
            values = settle(start + i)
            errors[i] = (block[i] - values) / block_factor[i, i]
            block[i] = values
            block[i + 1 :].addr_(block_factor[i, i + 1 :], errors[i], alpha=-1)
        rest_IO[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
