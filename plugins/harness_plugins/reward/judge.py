"""Judge: a language model says whether an answer is good, in place of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from harness import (
    AnswerScorer,
    ConfigError,
    Method,
    Prompt,
    Reward,
    as_text,
    hookimpl,
    model_ref,
)
from harness_plugins.reward._scored import given


class Judge(Reward):
    """AI feedback: log-odds of "yes" against "no" when asked whether an answer keeps to a principle.

    Paper: Bai et al. 2022, arXiv:2212.08073, section 4.1
    Differs: an answer is judged alone, not against another, so that every sample has a reward
    """

    name = "judge"
    reads_language_model = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Reward.Config):
        model: str = model_ref()
        """The model that judges; empty for the policy as it was before training."""
        principle: str = "The answer does exactly what was asked."
        """What a good answer keeps to."""
        yes: str = "yes"
        """The judge's word of approval."""
        no: str = "no"
        """The judge's word of disapproval."""

        def __post_init__(self) -> None:
            if self.yes == self.no:
                raise ConfigError("reward.yes and reward.no must differ")

    config: Config

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        model = given(scorer, self, "asks a language model; give it one by reward.model")
        asked = [
            f"Question: {as_text(prompt)}\nAnswer: {answer}\n{self.config.principle} "
            f"{self.config.yes} or {self.config.no}?"
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        approval = model.log_probs(asked, [self.config.yes] * len(asked))
        return approval - model.log_probs(asked, [self.config.no] * len(asked))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Judge]
