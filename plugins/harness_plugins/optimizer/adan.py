"""Adan: Nesterov momentum written as a moment of the gradient's change."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, Optimizer, hookimpl

from ._each import EachWeight


class Adan(Optimizer):
    """Adaptive Nesterov momentum: moments of the gradient, of its change, and of the square of both.

    Paper: Xie et al. 2022, arXiv:2208.06677, algorithm 1, without restarts
    State: three moments and the last gradient, in the weights' format
    Differs: moments are corrected for their start at zero, as in the authors' code; its betas are ours, one
    less those of the paper
    """

    name = "adan"
    moments = 4

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.02
        """Proximal decay of matrices: they are divided by 1 + rate * decay."""
        beta1: float = 0.98
        """Decay of the gradient's moment."""
        beta2: float = 0.92
        """Decay of the moment of its change, and the weight of that change."""
        beta3: float = 0.99
        """Decay of the second moment."""
        eps: float = 1e-8
        """Added to the root of the second moment."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        betas = (self.config.beta1, self.config.beta2, self.config.beta3)
        return _Adan(self.groups(model), {"lr": learning_rate, "betas": betas, "eps": self.config.eps})


class _Adan(EachWeight):
    def update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, betas = self.state[p], group["betas"]
        if not state:
            state["steps"] = 0
            state |= {name: torch.zeros_like(p) for name in ("mean", "change", "square")}
            state["last"] = gradient.clone()  # nothing has changed at the first step
        state["steps"] += 1
        change = gradient - state["last"]
        ahead = gradient.add(change, alpha=betas[1])
        state["mean"].lerp_(gradient, 1 - betas[0])
        state["change"].lerp_(change, 1 - betas[1])
        state["square"].lerp_(ahead.square(), 1 - betas[2])
        state["last"].copy_(gradient)
        mean, change, square = (
            state[name] / (1 - beta ** state["steps"])
            for name, beta in zip(("mean", "change", "square"), betas, strict=True)
        )
        update = mean.add(change, alpha=betas[1]) / (square.sqrt() + group["eps"])
        p.sub_(update, alpha=group["lr"])
        p.div_(1 + group["lr"] * group["weight_decay"])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Adan]
