"""Truncated decomposition where the layer's inputs are white: the nearest outputs, not the nearest weight."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import Hessian, Method, hookimpl

from .factorizer import Factorizer

DAMPING = 1e-4
"""Added to the moments' diagonal, as a share of its mean, so that inputs that never vary do not matter."""


class Whitened(Factorizer):
    """Truncates W S with S S^T = X X^T, and takes S out again: outputs on the calibration data err least.

    Paper: Wang et al. 2024, arXiv:2403.07378, section 3.1
    """

    name = "whitened"
    gathers = Hessian

    def factor(self, weight_OI: Tensor, inputs: Hessian, rank: int) -> Tensor:
        moments = inputs.sum.clone()
        moments.diagonal().add_(DAMPING * moments.diagonal().mean())
        root = torch.linalg.cholesky(moments)
        u, s, v = torch.linalg.svd(weight_OI.double() @ root, full_matrices=False)
        thin = (u[:, :rank] * s[:rank]) @ v[:rank]
        found = torch.linalg.solve_triangular(root, thin, upper=False, left=False)
        return found.to(weight_OI.dtype)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Whitened]
