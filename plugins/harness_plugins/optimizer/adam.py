"""Adam: steps scaled by estimates of the gradient's first two moments."""

from dataclasses import dataclass

import torch
from torch import nn

from harness import Method, hookimpl

from ._adam import Moments


class Adam(Moments):
    """Adam; decay, if any, is an L2 penalty that passes through the moments. torch's fused kernel.

    Paper: Kingma and Ba 2014, arXiv:1412.6980, algorithm 1
    State: two moments in the weights' format
    """

    name = "adam"

    @dataclass(frozen=True, kw_only=True)
    class Config(Moments.Config):
        weight_decay: float = 0.0
        """Weight of the L2 penalty on matrices, added to the gradient."""

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.groups(model), lr=learning_rate, betas=self.betas, eps=self.config.eps, fused=True
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Adam]
