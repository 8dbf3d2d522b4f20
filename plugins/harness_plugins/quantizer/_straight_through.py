"""Straight-through rounding: the forward pass sees the grid, the gradient does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._grid import UniformConfig, make_grid


class StraightThrough(nn.Module):
    """A parametrization of a linear layer's weight; the grid follows the weight at every step.

    Paper: Bengio et al. 2013, arXiv:1308.3432
    Shapes: weight out x in, or in x out for Hugging Face's Conv1D
    """

    def __init__(self, layer: nn.Module, config: UniformConfig) -> None:
        super().__init__()
        self.config = config
        self.transposed = type(layer).__name__ == "Conv1D"

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight; its gradient is handed to the weight as it is."""
        with torch.no_grad():
            rows = (weight.T if self.transposed else weight).float()
            rounded = make_grid(rows, self.config).nearest(rows)
            step = (rounded.T if self.transposed else rounded) - weight
        return weight + step
