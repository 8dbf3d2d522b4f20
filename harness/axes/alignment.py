"""Alignment: learning from preferences or rewards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor


class Needs(StrEnum):
    """What an alignment method learns from."""

    preferences = "preferences"
    """Offline pairs: batches carry chosen and rejected."""
    rollouts = "rollouts"
    """Its own samples, scored by the reward: batches carry prompts, answers and rewards."""


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


class Alignment(Method):
    """A loss on preferences or on scored samples; the one training loop does the rest."""

    axis = "alignment"
    default = "none"
    optional = True
    needs: Needs = Needs.preferences
    needs_reference: bool = True
    needs_reward: bool = False

    def loss(
        self,
        *,
        chosen: LogProbs,
        rejected: LogProbs,
        reference_chosen: LogProbs | None,
        reference_rejected: LogProbs | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each pair (B) and facts to log, for methods that learn from preferences."""
        raise NotImplementedError

    def rollout_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and facts to log, for methods that learn from their own samples."""
        raise NotImplementedError
