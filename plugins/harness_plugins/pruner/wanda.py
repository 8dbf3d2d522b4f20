"""Wanda: weights go that are small and meet small inputs."""

from __future__ import annotations

from torch import Tensor

from harness import Method, Pruner, SquaredNorms, hookimpl


class Wanda(Pruner):
    """Removes the lowest |W_ij| * ||X_j||_2 of each output; the weights that stay keep their values.

    Paper: Sun et al. 2023, arXiv:2306.11695, eq. 1 and algorithm 1
    """

    name = "wanda"
    gathers = SquaredNorms

    def prune_layer(self, weight_OI: Tensor, inputs: SquaredNorms) -> Tensor:
        norms_I = inputs.sum.sqrt().to(weight_OI.dtype)
        return weight_OI.masked_fill(self.lowest(weight_OI.abs() * norms_I), 0.0)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Wanda]
