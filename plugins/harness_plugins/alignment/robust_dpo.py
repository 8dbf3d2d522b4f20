"""Robust DPO: the loss of direct preference optimization, unbiased although labels were flipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl, log_ratios


class RobustDPO(Alignment):
    """((1 - e) * L(chosen, rejected) - e * L(rejected, chosen)) / (1 - 2 e), L being DPO's loss.

    Paper: Chowdhury et al. 2024, arXiv:2403.00409
    Raises: ConfigError if beta is not positive, or label_smoothing lies outside (0, 0.5)
    """

    name = "robust_dpo"

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Strength of the pull towards the reference; the inverse temperature of the implied reward."""
        label_smoothing: float = 0.1
        """Share e of pairs assumed to be labelled the wrong way round (above 0, below 0.5)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")
            if not 0 < self.label_smoothing < 0.5:
                raise ConfigError(
                    f"alignment.label_smoothing={self.label_smoothing} must be above 0 and below 0.5; "
                    "without flipped labels use alignment=dpo"
                )

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B, rejected_B = log_ratios(policy, reference)
        logits_B = self.config.beta * (chosen_B - rejected_B)
        flipped = self.config.label_smoothing
        weighted_B = -F.logsigmoid(logits_B) * (1 - flipped) + F.logsigmoid(-logits_B) * flipped
        facts = {"margin": logits_B, "accuracy": (logits_B > 0).float()}
        return weighted_B / (1 - 2 * flipped), facts


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RobustDPO]
