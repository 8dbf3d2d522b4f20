"""Odds ratio preference optimization: tuning and preference in one loss, no reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class ORPO(Alignment):
    """Cross-entropy of the chosen answer plus -log sigmoid of the log odds ratio.

    Paper: Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7
    """

    name = "orpo"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Weight of the odds-ratio term (the paper's lambda)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B, rejected_B = policy["chosen"].mean(), policy["rejected"].mean()
        odds_B = (chosen_B - rejected_B) - (_log1mexp(chosen_B) - _log1mexp(rejected_B))
        loss_B = -chosen_B - self.config.beta * F.logsigmoid(odds_B)
        return loss_B, {"margin": odds_B, "accuracy": (odds_B > 0).float()}


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, accurate at both ends."""
    x = x.clamp(max=-1e-7)
    return (-x.exp()).log1p().where(x < -0.693, (-x.expm1()).log())


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ORPO]
