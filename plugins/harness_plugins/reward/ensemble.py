"""Ensemble: several criteria combined into one reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import AnswerScorer, ConfigError, Method, Prompt, Reward, hookimpl, share_met
from harness_plugins.reward._scored import given

CRITERIA = ("trained", "rules", "brevity", "diversity")


class Combine(StrEnum):
    """How criteria become one number."""

    mean = "mean"
    """Weighted mean."""
    sum = "sum"
    """Weighted sum."""
    worst = "worst"
    """The lowest criterion; weights are not used."""


class Ensemble(Reward):
    """Weighted criteria: a trained preference model, rules, brevity, diversity of words.

    Paper: Coste et al. 2023, arXiv:2310.02743 (mean and worst case); Wu et al. 2023, arXiv:2306.01693
    (several criteria)
    """

    name = "ensemble"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Reward.Config):
        weights: dict[str, float] = field(default_factory=lambda: {"trained": 1.0, "rules": 1.0})
        """Weight of each criterion: trained (the stage reward), rules (share of constraints met), brevity
        (1 / (1 + words)), diversity (share of distinct words)."""
        combine: Combine = Combine.mean
        """How the criteria are combined: mean, sum or worst."""

        def __post_init__(self) -> None:
            unknown = sorted(set(self.weights) - set(CRITERIA))
            if unknown or not self.weights:
                raise ConfigError(
                    f"reward.weights names {unknown or 'nothing'}; known: {', '.join(CRITERIA)}"
                )
            if self.combine is Combine.mean and sum(self.weights.values()) <= 0:
                raise ConfigError("reward.weights must have a positive sum for reward.combine=mean")

    config: Config

    @classmethod
    def reads_checks(cls, config: Any) -> bool:
        return "rules" in config.weights

    def loss(
        self, chosen_B: Tensor, rejected_B: Tensor, chosen_nll_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gap_B = chosen_B - rejected_B
        return -F.logsigmoid(gap_B), {"margin": gap_B, "accuracy": (gap_B > 0).float()}

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        found: dict[str, Tensor] = {}
        for name in self.config.weights:
            if name == "trained":
                without = (
                    "weighs a trained model; put the stage reward before align, or drop 'trained' from "
                    "reward.weights"
                )
                found[name] = given(scorer, self, without).score(prompts, answers)
            elif name == "rules":
                found[name] = torch.tensor([share_met(a, c) for a, c in zip(answers, checks, strict=True)])
            elif name == "brevity":
                found[name] = torch.tensor([1 / (1 + len(a.split())) for a in answers])
            else:
                found[name] = torch.tensor([len(set(a.split())) / max(1, len(a.split())) for a in answers])
        values = torch.stack([found[name].float() for name in self.config.weights])
        if self.config.combine is Combine.worst:
            return values.amin(0)
        weights = torch.tensor(list(self.config.weights.values()))
        total = (weights[:, None] * values).sum(0)
        return total / weights.sum() if self.config.combine is Combine.mean else total


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Ensemble]
