"""Lion: the sign of an interpolated momentum."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, Optimizer, hookimpl


class Lion(Optimizer):
    """Sign updates from momentum, found by program search; wants 3 to 10 times less learning rate than AdamW.

    Paper: Chen et al. 2023, arXiv:2302.06675, program 1
    State: one momentum buffer
    """

    name = "lion"
    moments = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        beta1: float = 0.9
        """Weight of the momentum in the update."""
        beta2: float = 0.99
        """Decay of the momentum."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return _Lion(
            self.groups(model),
            {"lr": learning_rate, "beta1": self.config.beta1, "beta2": self.config.beta2},
        )


class _Lion(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights if p.grad is not None]
            for p in weights:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in weights]
            updates = torch._foreach_lerp(momenta, gradients, 1 - group["beta1"])
            torch._foreach_sign_(updates)
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - group["beta2"])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Lion]
