"""SparseGPT: what a removed weight gave is made good in the weights after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Hessian, Method, Pruner, compensate, hookimpl, inverse_factor


class SparseGPT(Pruner):
    """Removes the lowest w^2 / [H^-1]_cc^2 of a block of inputs, column by column with compensation.

    Paper: Frantar and Alistarh 2023, arXiv:2301.00774, algorithm 1 and section 3.3 (n:m)
    Differs: an input that is always zero is left to the damping (its weights score lowest), not zeroed first
    """

    name = "sparsegpt"
    gathers = Hessian

    @dataclass(frozen=True, kw_only=True)
    class Config(Pruner.Config):
        damping: float = 0.01
        """Added to the Hessian's diagonal, as a share of its mean."""
        block_size: int = 128
        """Inputs among which weights are compared, over all outputs, once those before them are settled (Bs
        of the paper); a pattern compares its own m."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.damping < 0:
                raise ConfigError(f"pruner.damping={self.damping} must not be negative")
            if self.block_size < 1:
                raise ConfigError(f"pruner.block_size={self.block_size} must be at least 1")

    config: Config

    def calibration_tokens(self, in_features: int) -> int:
        return in_features  # with fewer the Hessian is singular, and its damping alone decides

    def prune_layer(self, weight_OI: Tensor, inputs: Hessian) -> Tensor:
        factor = inverse_factor(inputs.sum, self.config.damping).to(weight_OI.dtype)
        scale_I = factor.diagonal()
        rest_IO = weight_OI.T.contiguous()
        kept, block = self.config.kept, self.config.block_size
        compared = kept[1] if kept else block
        if kept:  # a group lies within one block, whose columns are up to date
            block = -(-block // compared) * compared
        removed_IO = torch.zeros_like(rest_IO, dtype=torch.bool)

        def settle(column: int) -> Tensor:
            if column % compared == 0:
                here = slice(column, column + compared)
                scores_OI = (rest_IO[here].T / scale_I[here]).square()
                lines = scores_OI if kept else scores_OI.reshape(1, -1)
                removed_IO[here] = self.lowest(lines).view_as(scores_OI).T
            return rest_IO[column].masked_fill(removed_IO[column], 0.0)

        compensate(rest_IO, factor, settle, block_size=block)
        return rest_IO.T.contiguous()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SparseGPT]
