"""Reward: a number for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to one prompt, the first preferred."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    checks: dict[str, object]
    """Machine-checkable constraints of the prompt; empty where there are none."""


class Reward(Method):
    """Scores answers. A learned reward has `trains`, and gives `loss`; others score at once.

    Shapes: scores are B, higher is better
    """

    axis = "reward"
    default = "none"
    optional = True
    trains: bool = False

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Training loss of a learned reward on a batch of preferences."""
        raise NotImplementedError

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        checks: Sequence[dict[str, object]],
        scorer: Any = None,
    ) -> Tensor:
        """Rewards of B answers; `scorer` is the trained reward model where there is one."""
        raise NotImplementedError
