"""Proximal policy optimization: clipped policy steps with a learned value as baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import Alignment, ConfigError, Method, Needs, Rollouts, hookimpl

from ._policy_gradient import clipped


class PPO(Alignment):
    """Clipped surrogate on generalised advantages; each token pays for its drift, the last one earns.

    Paper: Schulman et al. 2017, arXiv:1707.06347, eq. 9; Ouyang et al. 2022, arXiv:2203.02155, eq. 2
    Differs: the value head is one linear map on the policy's own hidden states
    """

    name = "ppo"
    needs = Needs.rollouts
    needs_reward = True
    needs_values = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        kl_weight: float = 0.05
        """Price of one nat of drift from the reference."""
        clip: float = 0.2
        """How far the probability ratio may move the loss."""
        value_clip: float = 0.2
        """How far a value may move from its estimate when sampled."""
        value_weight: float = 0.5
        """Weight of the value loss."""
        discount: float = 1.0
        """Discount of later rewards (gamma)."""
        trace: float = 0.95
        """Decay of the advantage estimate (lambda); 1 sums all rewards, 0 looks one step ahead."""
        updates: int = 2
        """Steps on the same samples."""

        def __post_init__(self) -> None:
            if not 0 <= self.discount <= 1 or not 0 <= self.trace <= 1:
                raise ConfigError("alignment.discount and alignment.trace must be in [0, 1]")
            if self.updates < 1:
                raise ConfigError(f"alignment.updates={self.updates} must be at least 1")
            if self.clip <= 0 or self.value_clip <= 0:
                raise ConfigError("alignment.clip and alignment.value_clip must be positive")

    config: Config

    def updates_per_rollout(self) -> int:
        return self.config.updates

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        assert rollouts.values_BT is not None
        mask_BT, values_BT = rollouts.policy.mask_BT, rollouts.values_BT
        rewards_BT = -self.config.kl_weight * (rollouts.old_BT - rollouts.reference_BT) * mask_BT
        rows = torch.arange(len(mask_BT), device=mask_BT.device)
        last_B = mask_BT.shape[1] - 1 - mask_BT.flip(-1).argmax(-1)
        rewards_BT[rows, last_B] += rollouts.rewards_B
        advantage_BT = torch.zeros_like(values_BT)
        running_B = torch.zeros_like(values_BT[:, 0])
        next_B = torch.zeros_like(running_B)
        for t in reversed(range(values_BT.shape[1])):  # answers are contiguous, padding holds zeros
            delta_B = rewards_BT[:, t] + self.config.discount * next_B - values_BT[:, t]
            running_B = (delta_B + self.config.discount * self.config.trace * running_B) * mask_BT[:, t]
            advantage_BT[:, t] = running_B
            next_B = values_BT[:, t] * mask_BT[:, t]
        returns_BT = advantage_BT + values_BT
        return {
            "advantage": whiten(advantage_BT, mask_BT),
            "returns": returns_BT,
            "old_values": values_BT,
        }

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        assert rollouts.values_BT is not None
        policy, extras = rollouts.policy, rollouts.extras
        ratio_BT = (policy.per_token_BT - rollouts.old_BT).exp()
        policy_BT = clipped(ratio_BT, extras["advantage"], self.config.clip)
        old_BT, limit = extras["old_values"], self.config.value_clip
        near_BT = old_BT + (rollouts.values_BT - old_BT).clamp(-limit, limit)
        errors = (rollouts.values_BT - extras["returns"]) ** 2, (near_BT - extras["returns"]) ** 2
        value_BT = 0.5 * errors[0].maximum(errors[1])
        drift_B = ((rollouts.old_BT - rollouts.reference_BT) * policy.mask_BT).sum(-1)
        value_B = (value_BT * policy.mask_BT).sum(-1) / policy.mask_BT.sum(-1).clamp(min=1)
        return policy_BT + self.config.value_weight * value_BT, {"drift": drift_B, "value_loss": value_B}


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Zero mean and unit variance over the marked entries."""
    count = mask_BT.sum().clamp(min=1)
    mean = (values_BT * mask_BT).sum() / count
    variance = (((values_BT - mean) ** 2) * mask_BT).sum() / count
    return (values_BT - mean) * (variance + 1e-8).rsqrt() * mask_BT


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PPO]
