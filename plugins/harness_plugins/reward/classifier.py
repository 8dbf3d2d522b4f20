"""Classifier: a Hugging Face sequence-classification model scores answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import AnswerScorer, IncompatibleError, Method, Problem, Prompt, Reward, hookimpl, model_ref

if TYPE_CHECKING:
    from torch import Tensor, nn


class Classifier(Reward):
    """The logit of a released reward model, or of one label of another classifier.

    Prompt and answer are written by the model's own chat template, else given as a pair of texts.
    Paper: survey section 5.2.4 (released reward models)
    """

    name = "classifier"

    @dataclass(frozen=True, kw_only=True)
    class Config(Reward.Config):
        model: str = model_ref()
        """The sequence-classification model (`path:DIR` or `hub:name@revision`); required."""
        label: str = ""
        """Name of the label whose logit is the reward; needed where the model has several."""

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if not config.model:
            yield Problem(where="reward.model", message="name a sequence-classification model (path:DIR)")

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        if scorer is None:
            raise IncompatibleError("reward=classifier scores with a model; name it by reward.model=path:DIR")
        rewards_B: Tensor = scorer.score(prompts, answers)
        return rewards_B


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Classifier]
