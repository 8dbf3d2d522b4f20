"""AdamW: Adam with decoupled weight decay."""

import torch
from torch import nn

from harness import Method, hookimpl

from ._adam import Moments


class AdamW(Moments):
    """Adam whose decay acts on the weights, not on the gradient; torch's fused kernel.

    Paper: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2
    State: two moments in the weights' format
    """

    name = "adamw"

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.groups(model), lr=learning_rate, betas=self.betas, eps=self.config.eps, fused=True
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdamW]
