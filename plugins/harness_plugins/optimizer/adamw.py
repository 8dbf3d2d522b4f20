"""AdamW: Adam with decoupled weight decay."""

from dataclasses import dataclass

import torch
from torch import nn

from harness import Method, Optimizer, hookimpl


class AdamW(Optimizer):
    """Adam whose decay acts on the weights, not on the gradient; torch's fused kernel.

    Paper: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2
    State: two moments in the weights' format
    """

    name = "adamw"

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        beta1: float = 0.9
        """Decay of the first moment."""
        beta2: float = 0.95
        """Decay of the second moment (0.95 as GPT-3, PaLM and LLaMA)."""
        eps: float = 1e-8
        """Added to the root of the second moment."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.AdamW(
            self.groups(model), lr=learning_rate, betas=betas, eps=self.config.eps, fused=True
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdamW]
