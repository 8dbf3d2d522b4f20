"""Pairwise reward model: a scalar head trained to score the chosen answer higher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor
from torch.nn import functional as F

from harness import ConfigError, Method, hookimpl
from harness_plugins.reward._scored import Scored


class Start(StrEnum):
    """What a reward model starts from."""

    policy = "policy"
    """The policy's weights."""
    scratch = "scratch"
    """Fresh weights of the policy's shape."""


class Pairwise(Scored):
    """-log sigmoid(r(chosen) - r(rejected)), optionally with a language-model regulariser.

    Paper: Ouyang et al. 2022, arXiv:2203.02155, eq. 1; Askell et al. 2021, arXiv:2112.00861 (regulariser)
    """

    name = "pairwise"
    without = "a trained model; run the stage reward first"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Scored.Config):
        start: Start = Start.policy
        """What the reward model starts from: policy, or scratch (fresh weights of the same size)."""
        language_weight: float = 0.0
        """Weight of the chosen answer's cross-entropy, which keeps the model a language model."""
        center_weight: float = 0.0
        """Weight of (r(chosen) + r(rejected))^2, which centres rewards on zero."""

        def __post_init__(self) -> None:
            if self.language_weight < 0 or self.center_weight < 0:
                raise ConfigError("reward.language_weight and reward.center_weight must not be negative")

    config: Config

    def from_scratch(self) -> bool:
        return self.config.start is Start.scratch

    def loss(
        self, chosen_B: Tensor, rejected_B: Tensor, chosen_nll_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss_B = -F.logsigmoid(chosen_B - rejected_B)
        loss_B = loss_B + self.config.center_weight * (chosen_B + rejected_B) ** 2
        if self.config.language_weight:
            loss_B = loss_B + self.config.language_weight * chosen_nll_B
        gap_B = chosen_B - rejected_B
        return loss_B, {"margin": gap_B, "accuracy": (gap_B > 0).float()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pairwise]
