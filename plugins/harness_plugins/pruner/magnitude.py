"""Magnitude pruning: the smallest weights of each layer go."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from harness import Method, Pruner, hookimpl


class Magnitude(Pruner):
    """Removes the weights of least absolute value, compared over the whole layer; reads no data.

    Paper: Han et al. 2015, arXiv:1506.02626, section 3
    Differs: every layer loses the same share (one threshold each), as in the papers of SparseGPT and Wanda
    """

    name = "magnitude"

    def prune_layer(self, weight_OI: Tensor, inputs: Any) -> Tensor:
        size = weight_OI.abs()
        compared = size if self.config.kept else size.reshape(1, -1)
        return weight_OI.masked_fill(self.lowest(compared).view_as(weight_OI), 0.0)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Magnitude]
