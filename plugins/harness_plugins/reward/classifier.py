"""Classifier: a Hugging Face sequence-classification model scores answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import Method, Problem, hookimpl, model_ref
from harness_plugins.reward._scored import Scored

if TYPE_CHECKING:
    from torch import nn


class Classifier(Scored):
    """The logit of a released reward model, or of one label of another classifier.

    Prompt and answer are written by the model's own chat template, else given as a pair of texts.
    Paper: survey section 5.2.4 (released reward models)
    """

    name = "classifier"
    without = "a model; name it by reward.model=path:DIR"

    @dataclass(frozen=True, kw_only=True)
    class Config(Scored.Config):
        model: str = model_ref()
        """The sequence-classification model (`path:DIR` or `hub:name@revision`); required."""
        label: str = ""
        """Name of the label whose logit is the reward; needed where the model has several."""

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if not config.model:
            yield Problem(where="reward.model", message="name a sequence-classification model (path:DIR)")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Classifier]
