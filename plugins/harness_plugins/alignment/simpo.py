"""Simple preference optimization: length-averaged log-probabilities and a margin, no reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl


class SimPO(Alignment):
    """-log sigmoid(beta * (mean log-probability of chosen - that of rejected) - gamma).

    Paper: Meng et al. 2024, arXiv:2405.14734, eq. 6
    """

    name = "simpo"
    needs_reference = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 2.0
        """Scale of the length-averaged log-probability that serves as reward."""
        gamma: float = 1.0
        """Margin by which the chosen reward shall exceed the rejected one."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gap_B = self.config.beta * (policy["chosen"].mean() - policy["rejected"].mean())
        loss_B = -F.logsigmoid(gap_B - self.config.gamma)
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SimPO]
