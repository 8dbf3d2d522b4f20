"""Identity preference optimization: a squared loss that cannot run away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class IPO(Alignment):
    """Squared distance of the log-ratio gap from 1 / (2 tau).

    Paper: Azar et al. 2023, arXiv:2310.12036, eq. 17
    Differs: log-ratios are averaged over tokens, which the authors confirmed for answers of unequal length
    """

    name = "ipo"

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Strength of the regularisation (the paper's tau); the target gap is 1 / (2 beta)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B = policy["chosen"].mean() - reference["chosen"].mean()
        rejected_B = policy["rejected"].mean() - reference["rejected"].mean()
        gap_B = chosen_B - rejected_B
        return (gap_B - 1 / (2 * self.config.beta)) ** 2, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [IPO]
