"""Group relative policy optimization: PPO whose baseline is the prompt's other samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, Method, Needs, Rollouts, hookimpl

from ._policy_gradient import by_prompt, clipped, unbiased_drift


class GRPO(Alignment):
    """Clipped ratios times rewards standardised within each prompt's samples, plus a drift penalty.

    Paper: Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4
    """

    name = "grpo"
    needs = Needs.rollouts
    needs_reward = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        samples: int = 4
        """Answers sampled for each prompt (the paper's G); at least 2."""
        beta: float = 0.04
        """Weight of the drift from the reference."""
        clip: float = 0.2
        """How far the probability ratio may move the loss."""
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
