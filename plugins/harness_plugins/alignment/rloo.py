"""REINFORCE leave-one-out: each sample's baseline is the mean of the prompt's other samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, Method, Needs, Rollouts, hookimpl

from ._policy_gradient import by_prompt, clipped, summed_drift


class RLOO(Alignment):
    """Sequence-level policy gradient; the drift from the reference is part of the reward.

    Paper: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8
    """

    name = "rloo"
    needs = Needs.rollouts
    needs_reward = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        samples: int = 4
        """Answers sampled for each prompt; at least 2."""
        beta: float = 0.05
        """Weight of the drift from the reference within the reward."""
        clip: float = 0.2
        """How far the probability ratio of an answer may move the loss, where updates > 1."""
        updates: int = 1
        """Steps on the same samples."""

        def __post_init__(self) -> None:
            if self.samples < 2:
                raise ConfigError(f"alignment.samples={self.samples} must be at least 2: one is left out")
            if self.updates < 1:
                raise ConfigError(f"alignment.updates={self.updates} must be at least 1")
            if self.clip <= 0 or self.beta < 0:
                raise ConfigError("alignment.clip must be positive and alignment.beta not negative")

    config: Config

    def samples_per_prompt(self) -> int:
        return self.config.samples

    def updates_per_rollout(self) -> int:
        return self.config.updates

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        rewards_B = rollouts.rewards_B - self.config.beta * summed_drift(rollouts)
        groups = by_prompt(rewards_B, rollouts.samples_per_prompt)
        others = (groups.sum(-1, keepdim=True) - groups) / (rollouts.samples_per_prompt - 1)
        return {"advantage": (groups - others).flatten()}

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        policy = rollouts.policy
        ratio_B = (policy.sum() - (rollouts.old_BT * policy.mask_BT).sum(-1)).exp()
        loss_B = clipped(ratio_B, rollouts.extras["advantage"], self.config.clip)
        return loss_B, {"drift": summed_drift(rollouts)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RLOO]
