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
        return given(scorer, self, f"scores with {self.without}").score(prompts, answers)


def given(scorer: AnswerScorer | None, reward: Reward, without: str) -> AnswerScorer:
    """The model that a reward was handed; `without` says what it wants it for, and where it comes from.

    Raises: IncompatibleError where it was handed none
    """
    if scorer is None:
        raise IncompatibleError(f"reward={reward.name} {without}")
    return scorer
