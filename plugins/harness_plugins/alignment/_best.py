"""Shared by best_of_n and raft: tuning on each prompt's best sample."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, Needs, Rollouts

from ._policy_gradient import by_prompt, summed_drift


@dataclass(frozen=True, kw_only=True)
class BestConfig(Alignment.Config):
    """Options of tuning on the best of several samples."""

    samples: int = 4
    """Answers sampled for each prompt; the best is learned. At least 2."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"alignment.samples={self.samples} must be at least 2: the best is kept")


class Best(Alignment):
    """Cross-entropy of the best of each prompt's samples, averaged over tokens; ties go to the first."""

    needs = Needs.rollouts
    needs_reward = True
    Config = BestConfig
    config: BestConfig

    def samples_per_prompt(self) -> int:
        return self.config.samples

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        groups = by_prompt(rollouts.rewards_B, rollouts.samples_per_prompt)
        best_B = F.one_hot(groups.argmax(-1), rollouts.samples_per_prompt).flatten()
        best_B = best_B.to(rollouts.rewards_B.dtype)
        length_B = rollouts.policy.mask_BT.sum(-1)
        # The loss is averaged over all tokens, of which these are the ones that count.
        return {"weight": best_B * length_B.sum() / (best_B * length_B).sum().clamp(min=1)}

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        loss_BT = -rollouts.policy.per_token_BT * rollouts.extras["weight"][:, None]
        return loss_BT * rollouts.policy.mask_BT, {"drift": summed_drift(rollouts)}
