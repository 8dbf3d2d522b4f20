"""What rewards share that are the number of a model: it is handed to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from harness import AnswerScorer, IncompatibleError, Prompt, Reward


class Scored(Reward):
    """A variant says what is missing where no model is handed to it.

    Raises: IncompatibleError without a model
    """

    without: ClassVar[str]
    """What to do where there is no model."""

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        if scorer is None:
            raise IncompatibleError(f"reward={self.name} scores with {self.without}")
        rewards_B: Tensor = scorer.score(prompts, answers)
        return rewards_B
