"""Truncated singular value decomposition of each weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness import Method, hookimpl

from .factorizer import Factorizer


class TruncatedSVD(Factorizer):
    """Keeps the largest singular values: of all weights of that rank, the nearest.

    Paper: Eckart and Young 1936, Psychometrika 1, 211-218
    """

    name = "svd"

    def factor(self, weight_OI: Tensor, inputs: Any, rank: int) -> Tensor:
        u, s, v = torch.linalg.svd(weight_OI.double(), full_matrices=False)
        return ((u[:, :rank] * s[:rank]) @ v[:rank]).to(weight_OI.dtype)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TruncatedSVD]
