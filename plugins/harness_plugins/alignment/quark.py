"""Quantized reward conditioning: samples are learned under the quantile that they reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, Method, Needs, Rollouts, hookimpl

from ._policy_gradient import unbiased_drift


class Quark(Alignment):
    """Cross-entropy of samples after a control text naming their reward's quantile, plus a drift penalty.

    Paper: Lu et al. 2022, arXiv:2205.13636, algorithm 1 and eq. 2
    Differs: quantiles are those of the current samples, not of a growing pool; the control token is text
    in the prompt, so that no embedding is added
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
        below_B = (rewards_B[None, :] < rewards_B[:, None]).float().mean(-1)
        quantile_B = (below_B * self.config.quantiles).long() + 1
        return [self._labelled(p, int(q)) for p, q in zip(prompts, quantile_B, strict=True)]

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        policy = rollouts.policy
        drift_BT = unbiased_drift(policy.per_token_BT, rollouts.reference_BT) * policy.mask_BT
        drift_B = drift_BT.sum(-1) / policy.mask_BT.sum(-1).clamp(min=1)
        return -policy.mean() + self.config.beta * drift_B, {"drift": drift_BT.sum(-1)}

    def _labelled(self, prompt: str, quantile: int) -> str:
        return f"[reward {quantile} of {self.config.quantiles}] {prompt}"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Quark]
