"""REINFORCE leave-one-out: each sample's baseline is the mean of the prompt's other samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness import Method, Rollouts, hookimpl

from ._policy_gradient import GroupSampling, by_prompt, clipped, summed_drift


class RLOO(GroupSampling):
    """Sequence-level policy gradient; the drift from the reference is part of the reward.

    Paper: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8
    """

    name = "rloo"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupSampling.Config):
        beta: float = 0.05
        """Weight of the drift from the reference within the reward."""

    config: Config

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
