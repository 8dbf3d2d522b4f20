"""Quantized reward conditioning: samples are learned under the quantile that they reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from harness import Alignment, ConfigError, Method, Needs, Rollouts, hookimpl

from ._policy_gradient import unbiased_drift


class Quark(Alignment):
    """Cross-entropy of samples after a control text naming their reward's quantile, plus a drift penalty,
    averaged over tokens as in the authors' code.

    Paper: Lu et al. 2022, arXiv:2205.13636, algorithm 1 and eq. 2
    Differs: the control token is text, so that no embedding is added, and ends the prompt, where the answer
    begins: a text before the prompt that has to be told apart at a distance is learned late, and until then
    all quantiles are learned alike; the drift is estimated on the samples
    """

    name = "quark"
    needs = Needs.rollouts
    needs_reward = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        quantiles: int = 4
        """Number of reward quantiles (the paper's K); at least 2."""
        samples: int = 4
        """Answers sampled for each prompt."""
        beta: float = 0.05
        """Weight of the drift from the reference."""

        def __post_init__(self) -> None:
            if self.quantiles < 2:
                raise ConfigError(f"alignment.quantiles={self.quantiles} must be at least 2")
            if self.samples < 1 or self.beta < 0:
                raise ConfigError("alignment.samples must be at least 1 and alignment.beta not negative")

    config: Config

    def samples_per_prompt(self) -> int:
        return self.config.samples

    def prompt(self, text: str) -> str:
        return self._labelled(text, self.config.quantiles)

    def relabel(self, prompts: Sequence[str], rewards_B: Tensor) -> list[str]:
        quantile_B = self.quantile(rewards_B)
        return [self._labelled(p, int(q)) for p, q in zip(prompts, quantile_B, strict=True)]

    def replay(self, rewards_P: Tensor, size: int, generator: Generator) -> Tensor:
        """Samples of the pool, each quantile as often as any other (algorithm 1)."""
        quantile_P = self.quantile(rewards_P)
        count_P = torch.bincount(quantile_P, minlength=self.config.quantiles + 1)[quantile_P]
        return torch.multinomial(1 / count_P, size, replacement=True, generator=generator)

    def quantile(self, rewards_P: Tensor) -> Tensor:
        """Quantile of each sample, 1 the lowest; ties share one."""
        below_P = torch.searchsorted(rewards_P.sort().values, rewards_P) / len(rewards_P)
        quantile_P = (below_P * self.config.quantiles).long() + 1
        # The best are what the prompt asks for, also where so many tie that fewer than a quantile lie below.
        best_P = (rewards_P == rewards_P.max()) & (below_P > 0)
        return quantile_P.masked_fill(best_P, self.config.quantiles)

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        policy = rollouts.policy
        drift_BT = unbiased_drift(policy.per_token_BT, rollouts.reference_BT) * policy.mask_BT
        loss_BT = (self.config.beta * drift_BT - policy.per_token_BT) * policy.mask_BT
        return loss_BT, {"drift": drift_BT.sum(-1)}

    def _labelled(self, prompt: str, quantile: int) -> str:
        return f"{prompt} [reward {quantile} of {self.config.quantiles}]"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Quark]
