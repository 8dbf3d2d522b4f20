"""Win rate: how often a judge prefers the model's answers to a baseline's."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import (
    ConfigError,
    DataError,
    Duel,
    Evaluation,
    Evaluator,
    IncompatibleError,
    Item,
    Method,
    Metric,
    Subject,
    answer,
    hookimpl,
    model_ref,
    read_items,
)


class WinRate(Evaluator):
    """Pairwise comparison by the chosen judge; both orders are asked, a draw counts one half.

    Error: standard error over prompts
    """

    name = "win_rate"
    uses = frozenset({"judge", "decoding"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        baseline: str = model_ref()
        """Model whose answers are the other side; empty = the reference answers of the prompts."""
        prompts: str = "instructions"
        """A skill whose test items are asked, or a JSON (lines) file with `prompt` and `answer`."""
        max_prompts: int = 64
        """Prompts asked, from the start."""
        max_new_tokens: int = 24
        """Longest answer, in tokens."""

        def __post_init__(self) -> None:
            if self.max_prompts < 1 or self.max_new_tokens < 1:
                raise ConfigError("evaluator.win_rate.max_prompts and max_new_tokens must be at least 1")

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_prompts=6, max_new_tokens=8)

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return ("win_rate",)

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        judge = subject.judge
        assert judge is not None
        items = read_items(self.config.prompts, limit=self.config.max_prompts)
        ours = self.answers(subject, items)
        theirs = self.reference(subject, items)
        forward = [
            Duel(prompt=item.prompt, first=a, second=b, checks=item.checks)
            for item, a, b in zip(items, ours, theirs, strict=True)
        ]
        backward = [
            Duel(prompt=duel.prompt, first=duel.second, second=duel.first, checks=duel.checks)
            for duel in forward
        ]
        one, other = np.array(judge.prefer(forward)), 1 - np.array(judge.prefer(backward))
        wins = (one + other) / 2
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": [hashlib.sha256(item.prompt.encode()).hexdigest() for item in items],
                "prompt": [item.prompt for item in items],
                "answer": ours,
                "target": theirs,
                "win_rate": wins,
                "orders_agree": one == other,
            }
        )
        count = len(items)
        error = float(wins.std(ddof=1) / count**0.5) if count > 1 else None
        metric = Metric(task=task, metric="win_rate", value=float(wins.mean()), stderr=error, n=count)
        facts = {
            "judge": judge.name,
            "draws": int((wins == 0.5).sum()),
            "orders_disagree": int((one != other).sum()),
            **judge.facts(),
            "against": "reference answers" if subject.baseline is None else "model",
        }
        return Evaluation(metrics=[metric], samples=samples, facts=facts)

    def answers(self, subject: Subject, items: list[Item]) -> list[str]:
        """A subject's answers to all prompts."""
        prompts = [item.prompt for item in items]
        return answer(subject, prompts, max_new_tokens=self.config.max_new_tokens).texts

    def reference(self, subject: Subject, items: list[Item]) -> list[str]:
        """The other side's answers."""
        if subject.baseline is not None:
            return self.answers(subject.baseline(), items)
        if self.config.baseline:
            raise IncompatibleError(f"evaluator.win_rate.baseline={self.config.baseline} was not loaded")
        found = [item.answer for item in items]
        if not all(found):
            raise DataError(
                f"evaluator.win_rate.prompts={self.config.prompts} has prompts without a reference answer; "
                "set evaluator.win_rate.baseline to a model"
            )
        return found


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WinRate]
