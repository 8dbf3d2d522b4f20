"""LAMB: Adam's step at the length of the weights it changes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, hookimpl

from ._adam import Moments
from ._each import EachWeight


class Lamb(Moments):
    """Adam with decoupled decay whose step of each matrix is as long as the matrix, for large batches.

    Paper: You et al. 2019, arXiv:1904.00962, algorithm 2 with phi(z) = z
    State: two moments in the weights' format
    Differs: vectors take Adam's step, as the authors' code leaves biases and norms out of the adaptation
    """

    name = "lamb"
    conflicts = frozenset({"sharded_weights"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Moments.Config):
        weight_decay: float = 0.01
        """Decoupled decay of matrices, part of the step that is set to their length."""
        beta2: float = 0.999
        """Decay of the second moment."""
        eps: float = 1e-6
        """Added to the root of the second moment."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        options = {"betas": self.betas, "eps": self.config.eps}
        return _Lamb(self.groups(model), {"lr": learning_rate, **options})


class _Lamb(EachWeight):
    def update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state["steps"] = 0
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        update = state["mean"] / (1 - beta1 ** state["steps"])
        update /= (state["square"] / (1 - beta2 ** state["steps"])).sqrt() + group["eps"]
        update.add_(p, alpha=group["weight_decay"])
        if p.ndim >= 2:
            weight, length = p.norm(), update.norm()
            # Weights that are all zero have no length to go by.
            update *= torch.where((weight > 0) & (length > 0), weight / length, 1.0)
        p.sub_(update, alpha=group["lr"])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Lamb]
