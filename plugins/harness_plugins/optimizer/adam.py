"""Adam: steps scaled by estimates of the gradient's first two moments."""

from dataclasses import dataclass

import torch
from torch import nn

from harness import Method, Optimizer, hookimpl


class Adam(Optimizer):
    """Adam; decay, if any, is an L2 penalty that passes through the moments. torch's fused kernel.

    Paper: Kingma and Ba 2014, arXiv:1412.6980, algorithm 1
    State: two moments in the weights' format
    """

    name = "adam"

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.0
        """Weight of the L2 penalty on matrices, added to the gradient."""
        beta1: float = 0.9
        """Decay of the first moment."""
        beta2: float = 0.95
        """Decay of the second moment (0.95 as GPT-3, PaLM and LLaMA)."""
        eps: float = 1e-8
        """Added to the root of the second moment."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(
            self.groups(model), lr=learning_rate, betas=betas, eps=self.config.eps, fused=True
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Adam]
