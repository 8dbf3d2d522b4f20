"""Rules: code checks what the prompt asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import AnswerScorer, Method, Prompt, Reward, check, hookimpl, share_met


class Rules(Reward):
    """Share of the prompt's constraints that an answer meets, with a bonus for all of them.

    Paper: Glaese et al. 2022, arXiv:2209.14375 (rules as rewards)
    """

    name = "rules"

    @dataclass(frozen=True, kw_only=True)
    class Config(Reward.Config):
        all_bonus: float = 1.0
        """Added where every constraint is met."""
        empty_reward: float = -1.0
        """Reward of an empty answer."""

    config: Config

    @classmethod
    def reads_checks(cls, config: Any) -> bool:
        return True

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        found = []
        for answer, wanted in zip(answers, checks, strict=True):
            if not answer.strip():
                found.append(self.config.empty_reward)
                continue
            found.append(share_met(answer, wanted) + self.config.all_bonus * check(answer, wanted))
        return torch.tensor(found, dtype=torch.float32)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Rules]
