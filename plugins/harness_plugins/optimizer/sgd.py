"""SGD: steps along the gradient, with momentum."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness import Method, Optimizer, hookimpl


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum; decay is an L2 penalty on the loss.

    Paper: Sutskever et al. 2013, proceedings.mlr.press/v28/sutskever13, equations 1 to 4
    State: one momentum buffer
    """

    name = "sgd"

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.0
        """Weight of the L2 penalty on matrices, added to the gradient."""
        beta: float = 0.9
        """Momentum; 0 is plain gradient descent."""
        nesterov: bool = False
        """Whether the gradient is taken ahead of the momentum step."""

    config: Config

    @property
    def moments(self) -> int:  # type: ignore[override]
        return 1 if self.config.beta else 0

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return _Sgd(
            self.groups(model),
            lr=learning_rate,
            momentum=self.config.beta,
            nesterov=self.config.nesterov,
            fused=True,
        )


class _Sgd(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        # The fused kernel wants momenta of all weights or of none: one without a gradient so far is at rest.
        for group in self.param_groups:
            if group["momentum"]:
                for p in group["params"]:
                    if p.grad is not None and not self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super().step(closure)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Sgd]
