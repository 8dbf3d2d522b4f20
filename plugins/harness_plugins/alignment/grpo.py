"""Group relative policy optimization: PPO whose baseline is the prompt's other samples."""

from __future__ import annotations

from torch import Tensor

from harness import Method, Rollouts, hookimpl

from ._policy_gradient import GroupSampling, by_prompt, clipped, unbiased_drift


class GRPO(GroupSampling):
    """Clipped ratios times rewards standardised within each prompt's samples, plus a drift penalty.

    Paper: Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4
    """

    name = "grpo"

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        groups = by_prompt(rollouts.rewards_B, rollouts.samples_per_prompt)
        spread = groups.std(-1, keepdim=True) + 1e-4
        return {"advantage": ((groups - groups.mean(-1, keepdim=True)) / spread).flatten()}

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        policy = rollouts.policy
        ratio_BT = (policy.per_token_BT - rollouts.old_BT).exp()
        drift_BT = unbiased_drift(policy.per_token_BT, rollouts.reference_BT)
        loss_BT = clipped(ratio_BT, rollouts.extras["advantage"][:, None], self.config.clip)
        loss_BT = (loss_BT + self.config.beta * drift_BT) * policy.mask_BT
        length_B = policy.mask_BT.sum(-1).clamp(min=1)
        return loss_BT.sum(-1) / length_B, {"drift": (drift_BT * policy.mask_BT).sum(-1)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GRPO]
