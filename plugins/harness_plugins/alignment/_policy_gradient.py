"""Shared by the methods that follow a policy gradient: clipped ratios, drift and group advantages."""

from __future__ import annotations

from torch import Tensor

from harness import Rollouts


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
