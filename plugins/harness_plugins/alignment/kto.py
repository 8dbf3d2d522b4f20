"""Kahneman-Tversky optimization: each answer is good or bad on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from harness import Alignment, ConfigError, LogProbs, Method, hookimpl, log_ratios


class KTO(Alignment):
    """Value of an answer relative to the policy's drift from the reference, bounded on both sides.

    Paper: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7
    Differs: a pair gives one desirable and one undesirable answer; the drift is estimated on the micro-batch,
    on prompts with the answer of the pair before in the epoch's order
    """

    name = "kto"
    parts = ("chosen", "rejected", "mismatched")
    takes_single_answers = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Alignment.Config):
        beta: float = 0.1
        """Risk aversion: how soon the value of an answer saturates."""
        desirable_weight: float = 1.0
        """Weight of the loss on good answers (the paper's lambda_D)."""
        undesirable_weight: float = 1.0
        """Weight of the loss on bad answers (the paper's lambda_U)."""

        def __post_init__(self) -> None:
            if self.beta <= 0:
                raise ConfigError(f"alignment.beta={self.beta} must be positive")

    config: Config

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        beta = self.config.beta
        chosen_B, rejected_B = log_ratios(policy, reference)
        drift = (policy["mismatched"].sum() - reference["mismatched"].sum()).mean().detach().clamp(min=0)
        good_B = 1 - (beta * (chosen_B - drift)).sigmoid()
        bad_B = 1 - (beta * (drift - rejected_B)).sigmoid()
        has_good_B, has_bad_B = (policy[part].mask_BT.amax(-1) for part in ("chosen", "rejected"))
        loss_B = self.config.desirable_weight * good_B * has_good_B
        loss_B = (loss_B + self.config.undesirable_weight * bad_B * has_bad_B) / (has_good_B + has_bad_B)
        gap_B = beta * (chosen_B - rejected_B)
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float(), "drift": drift.expand_as(gap_B)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [KTO]
