"""Direct preference optimization: a classification loss on log-ratios to the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl, log_ratios


class DPO(Alignment):
    """-log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)).

    Paper: Rafailov et al. 2023, arXiv:2305.18290, eq. 7
    """

    name = "dpo"

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Strength of the pull towards the reference; the inverse temperature of the implied reward."""
        label_smoothing: float = 0.0
        """Share of pairs assumed to be labelled the wrong way round (0 to 0.5)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")
            if not 0 <= self.label_smoothing < 0.5:
                raise ConfigError(f"alignment.label_smoothing={self.label_smoothing} must be in [0, 0.5)")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B, rejected_B = log_ratios(policy, reference)
        logits_B = self.config.beta * (chosen_B - rejected_B)
        smoothing = self.config.label_smoothing
        loss_B = -F.logsigmoid(logits_B) * (1 - smoothing) - F.logsigmoid(-logits_B) * smoothing
        return loss_B, {"margin": logits_B, "accuracy": (logits_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DPO]
