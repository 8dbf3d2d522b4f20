"""Reward model: the answer that a trained reward model scores higher wins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from harness import ConfigError, Duel, Judge, Method, Problem, has_head, hookimpl, model_ref


class RewardModel(Judge):
    """Scores both answers; the higher score wins, equal scores are a draw.

    Differs: without `model` it reuses the reward the policy was trained on, which favours that policy; the
        record says so
    """

    name = "reward_model"

    @dataclass(frozen=True, kw_only=True)
    class Config(Judge.Config):
        model: str = model_ref()
        """A reward model to judge with; empty = the one this cell trained."""
        margin: float = 0.0
        """Scores closer than this are a draw."""

        def __post_init__(self) -> None:
            if self.margin < 0:
                raise ConfigError(f"judge.margin={self.margin} must not be negative")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        reward = cell.choice("reward")
        if not config.model and (reward is None or not getattr(reward.method, "trains", False)):
            yield Problem(where="judge.model", message=NO_MODEL)
        yield from _headless(config.model)

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        scorer = self.scorers.get("model") or self.scorers.get("reward")
        if scorer is None:
            raise ConfigError(f"judge.model: {NO_MODEL}")
        prompts = [duel.prompt for duel in duels]
        first = scorer.score(prompts, [duel.first for duel in duels])
        second = scorer.score(prompts, [duel.second for duel in duels])
        return [
            0.5 if abs(gap) <= self.config.margin else float(gap > 0) for gap in (first - second).tolist()
        ]

    def facts(self) -> dict[str, Any]:
        return {"judge_is_training_reward": "model" not in self.scorers}


def _headless(reference: str) -> Iterable[Problem]:
    """A problem where a named model gives no scores: it has no reward head, and is no classifier."""
    path = Path(reference.removeprefix("path:")).expanduser()
    tuned = reference.startswith("cell:")
    if tuned or (reference and path.is_dir() and not has_head(path)):
        yield Problem(
            where="judge.model",
            message=f"{reference} has no reward head; name a folder that the stage reward wrote, or a "
            "sequence-classification model (path:DIR)",
        )


NO_MODEL = (
    "the judge has no reward model; name one (judge.model=path:DIR), or train one in this cell "
    "(reward=pairwise)"
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RewardModel]
