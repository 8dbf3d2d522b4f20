"""Contrastive preference optimization: DPO without a reference, with the chosen answer kept likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class CPO(Alignment):
    """-log sigmoid(beta * (log p(chosen) - log p(rejected))) - weight * log p(chosen).

    Paper: Xu et al. 2024, arXiv:2401.08417
    Differs: the cross-entropy of the chosen answer is averaged over its tokens, as in the authors' code
    """

    name = "cpo"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Scale of the log-probabilities that serve as rewards."""
        chosen_weight: float = 1.0
        """Weight of the chosen answer's cross-entropy (0 is the contrast alone)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")
            if self.chosen_weight < 0:
                raise ConfigError(f"alignment.chosen_weight={self.chosen_weight} must not be negative")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = policy["chosen"]
        gap_B = self.config.beta * (chosen.sum() - policy["rejected"].sum())
        loss_B = -F.logsigmoid(gap_B) - self.config.chosen_weight * chosen.mean()
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [CPO]
