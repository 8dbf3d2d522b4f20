"""Shared by the methods that follow a policy gradient: clipped ratios, drift and group advantages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, Needs, Rollouts


class GroupSampling(Alignment):
    """Base of the methods whose baseline is what else was sampled for the prompt."""

    needs = Needs.rollouts
    needs_reward = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        samples: int = 4
        """Answers sampled for each prompt (G); at least 2, since they are compared."""
        beta: float = 0.04
        """Weight of the drift from the reference."""
        clip: float = 0.2
        """How far a probability ratio may move the loss."""
        updates: int = 1
        """Steps on the same samples."""

        def __post_init__(self) -> None:
            if self.samples < 2:
                raise ConfigError(f"alignment.samples={self.samples} must be at least 2: they are compared")
            if self.updates < 1:
                raise ConfigError(f"alignment.updates={self.updates} must be at least 1")
            if self.clip <= 0 or self.beta < 0:
                raise ConfigError("alignment.clip must be positive and alignment.beta not negative")

    config: Config

    def samples_per_prompt(self) -> int:
        return self.config.samples

    def updates_per_rollout(self) -> int:
        return self.config.updates


def clipped(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Negative clipped surrogate: -min(r A, clamp(r, 1 - clip, 1 + clip) A) (PPO, eq. 7)."""
    return -(ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage)


def unbiased_drift(policy_BT: Tensor, reference_BT: Tensor) -> Tensor:
    """Estimate of the KL divergence from the reference for each token, never negative (GRPO, eq. 4)."""
    difference_BT = reference_BT - policy_BT
    return difference_BT.exp() - difference_BT - 1


def summed_drift(rollouts: Rollouts) -> Tensor:
    """log(policy / reference) of whole answers when they were sampled (B)."""
    return ((rollouts.old_BT - rollouts.reference_BT) * rollouts.policy.mask_BT).sum(-1)


def by_prompt(rewards_B: Tensor, samples_per_prompt: int) -> Tensor:
    """Rewards with one row a prompt."""
    return rewards_B.view(-1, samples_per_prompt)
