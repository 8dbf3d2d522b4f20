"""Sequence likelihood calibration: a hinge between two answers, with the chosen one kept likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class SLiC(Alignment):
    """max(0, delta - log p(chosen) + log p(rejected)) - weight * log p(chosen).

    Paper: Zhao et al. 2023, arXiv:2305.10425, eq. 1
    Differs: log-probabilities are averaged over tokens; the regularising target is the chosen answer
    """

    name = "slic"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        delta: float = 1.0
        """Margin of the hinge, in nats per token."""
        regularization: float = 0.1
        """Weight of the chosen answer's cross-entropy."""

        def __post_init__(self) -> None:
            if self.delta <= 0:
                raise ConfigError(f"alignment.delta={self.delta} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B = policy["chosen"].mean()
        gap_B = chosen_B - policy["rejected"].mean()
        loss_B = (self.config.delta - gap_B).relu() - self.config.regularization * chosen_B
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SLiC]
