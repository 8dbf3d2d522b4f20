"""Schedule: the learning rate over a run."""

from abc import abstractmethod
from dataclasses import dataclass

from harness.errors import ConfigError
from harness.method import Method


class Schedule(Method):
    """Factor on the stage's learning rate: a linear warm-up from 0 to 1, then the method's decay."""

    axis = "schedule"
    default = "cosine"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        warmup_share: float = 0.05
        """Share of the run spent warming up linearly from 0 (0 to 1)."""

        def __post_init__(self) -> None:
            if not 0 <= self.warmup_share < 1:
                raise ConfigError(
                    f"schedule.warmup_share={self.warmup_share} is a share of the run and must lie in [0, 1)"
                )

    config: Config

    def factor(self, progress: float, step: int, total_steps: int) -> float:
        """Factor for an update; `progress` is the share of the budget spent, in [0, 1].

        `step` (0-based) and `total_steps` (expected) are for methods that count; most follow progress.
        """
        warmup = self.config.warmup_share
        if progress < warmup:
            return progress / warmup
        return self.decay((progress - warmup) / (1 - warmup))

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Factor after the warm-up; `progress` in [0, 1] is the share of the rest that is spent."""
        raise NotImplementedError
