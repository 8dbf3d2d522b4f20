"""AdEMAMix: AdamW with a second, much slower momentum."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, hookimpl

from ._adam import Moments
from ._each import EachWeight


class AdEMAMix(Moments):
    """AdamW whose update mixes a fast moment of the gradient with one that remembers thousands of steps.

    Paper: Pagliardini et al. 2024, arXiv:2409.03137, algorithm 1
    State: two first moments and a second, in the weights' format
    Raises: ConfigError for a negative alpha or warm-up, or one whose decay cannot rise from beta1 to beta3
    """

    name = "ademamix"
    moments = 3

    @dataclass(frozen=True, kw_only=True)
    class Config(Moments.Config):
        beta2: float = 0.999
        """Decay of the second moment."""
        beta3: float = 0.9999
        """Decay of the slow first moment."""
        alpha: float = 5.0
        """Weight of the slow moment beside the fast one, whose weight is 1 (4 to 10 in the paper)."""
        warmup_steps: int = 0
        """Steps over which alpha and the slow decay rise, in the paper as many as the run has; 0 is none."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.alpha < 0:
                raise ConfigError(f"optimizer.alpha={self.alpha} must not be negative")
            if self.warmup_steps < 0:
                raise ConfigError(f"optimizer.warmup_steps={self.warmup_steps} must not be negative")
            if self.warmup_steps and not 0 < self.beta1 <= self.beta3:
                raise ConfigError(
                    f"optimizer.beta3={self.beta3} rises from beta1={self.beta1} in warmup_steps="
                    f"{self.warmup_steps}, which takes 0 < beta1 <= beta3; set warmup_steps=0, or other betas"
                )

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        options = {
            "betas": (*self.betas, self.config.beta3),
            "eps": self.config.eps,
            "alpha": self.config.alpha,
            "warmup_steps": self.config.warmup_steps,
        }
        return _AdEMAMix(self.groups(model), {"lr": learning_rate, **options})


class _AdEMAMix(EachWeight):
    def update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2, _) = self.state[p], group["betas"]
        if not state:
            state["steps"] = 0
            state |= {name: torch.zeros_like(p) for name in ("fast", "slow", "square")}
        state["steps"] += 1
        alpha, beta3 = mixed(state["steps"], group)
        state["fast"].lerp_(gradient, 1 - beta1)
        state["slow"].lerp_(gradient, 1 - beta3)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Algorithm 1 corrects the slow moment for no start at zero.
        update = (state["fast"] / (1 - beta1 ** state["steps"])).add_(state["slow"], alpha=alpha)
        update /= (state["square"] / (1 - beta2 ** state["steps"])).sqrt() + group["eps"]
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(update, alpha=group["lr"])


def mixed(step: int, group: dict[str, Any]) -> tuple[float, float]:
    """The slow moment's weight and decay at a step, counted from 1; weight and half-life rise evenly."""
    beta1, _, beta3 = group["betas"]
    if step >= group["warmup_steps"]:
        return group["alpha"], beta3
    share = step / group["warmup_steps"]
    start, end = math.log(beta1), math.log(beta3)
    # Algorithm 1's f_beta3: ln(0.5) / ln(beta) moves in a straight line.
    return share * group["alpha"], math.exp(start * end / ((1 - share) * end + share * start))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdEMAMix]
