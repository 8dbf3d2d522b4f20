"""Rank responses to align with human feedback: likelihoods in the order of preference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class RRHF(Alignment):
    """max(0, p(rejected) - p(chosen)) on length-averaged log-probabilities, plus tuning on the best.

    Paper: Yuan et al. 2023, arXiv:2304.05302, eq. 1 to 4
    Differs: the best answer's cross-entropy is averaged over its tokens, as in the authors' code
    """

    name = "rrhf"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        rank_weight: float = 1.0
        """Weight of the ranking term against the cross-entropy of the best answer."""

        def __post_init__(self) -> None:
            if self.rank_weight <= 0:
                raise ConfigError(f"alignment.rank_weight={self.rank_weight} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B = policy["chosen"].mean()
        gap_B = chosen_B - policy["rejected"].mean()
        loss_B = self.config.rank_weight * (-gap_B).relu() - chosen_B
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RRHF]
