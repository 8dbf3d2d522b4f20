"""Alignment: learning from preferences or rewards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.axes.reward import Preference
from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor


class Needs(StrEnum):
    """What an alignment method learns from."""

    preferences = "preferences"
    """Offline pairs: `loss` is handed chosen and rejected answers."""
    rollouts = "rollouts"
    """The policy's own samples, scored by the reward: `rollout_loss` is handed `Rollouts`."""


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """Log-probabilities of answers under one model.

    Shapes: per_token_BT with zeros outside the answer, mask_BT marks answer tokens
    """

    per_token_BT: Tensor
    mask_BT: Tensor

    def sum(self) -> Tensor:
        """Log-probability of each answer (B)."""
        return (self.per_token_BT * self.mask_BT).sum(-1)

    def mean(self) -> Tensor:
        """Per-token log-probability of each answer (B)."""
        return self.sum() / self.mask_BT.sum(-1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Samples of the policy and what is known of them.

    Shapes: B samples of T positions, samples of one prompt adjacent; old, reference and values are B x T
    and zero outside the answers; rewards B, higher is better; extras hold what `prepare` returned
    """

    policy: LogProbs
    """Under the policy as it is now, with gradients; in `prepare`, as it was when it sampled."""
    old_BT: Tensor
    """Log-probabilities when sampled."""
    reference_BT: Tensor
    rewards_B: Tensor
    samples_per_prompt: int
    values_BT: Tensor | None
    """The value head's estimates, where the method `needs_values`."""
    extras: dict[str, Tensor]


class Alignment(Method):
    """A loss on preferences or on scored samples; the one training loop does the rest."""

    axis = "alignment"
    default = "none"
    optional = True
    needs: Needs = Needs.preferences
    needs_reference: bool = True
    needs_reward: bool = False
    needs_mismatched: bool = False
    """Whether `loss` also wants each prompt with another prompt's answer (KTO's estimate of the KL)."""
    needs_values: bool = False
    """Whether rollouts come with a value head's estimates."""

    def rewrite(self, preference: Preference) -> Preference:
        """The texts that are learned from, where they differ from the preference's."""
        return preference

    def loss(
        self,
        *,
        chosen: LogProbs,
        rejected: LogProbs,
        reference_chosen: LogProbs | None,
        reference_rejected: LogProbs | None,
        mismatched: LogProbs | None = None,
        reference_mismatched: LogProbs | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each pair (B) and facts to log (B each), for methods that learn from preferences."""
        raise NotImplementedError

    def samples_per_prompt(self) -> int:
        """Answers sampled for each prompt."""
        return 1

    def updates_per_rollout(self) -> int:
        """Steps taken on the same samples before new ones are drawn."""
        return 1

    def samples_from_start(self) -> bool:
        """Whether samples come from the policy as it was before training, not as it is."""
        return False

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        """Advantages and the like, B x ... each, computed once on all samples of a rollout."""
        return {}

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each sample (B) and facts to log (B each), for methods that learn from samples."""
        raise NotImplementedError
