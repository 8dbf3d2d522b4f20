"""Schedule: the learning rate over a run."""

from abc import abstractmethod
from dataclasses import dataclass

from harness.method import Method


class Schedule(Method):
    """Factor on the stage's learning rate."""

    axis = "schedule"
    default = "cosine"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        warmup_share: float = 0.05
        """Share of the run spent warming up linearly from 0 (0 to 1)."""

    config: Config

    @abstractmethod
    def factor(self, progress: float, step: int, total_steps: int) -> float:
        """Factor for the update of step `step` (0-based); `progress` is the share of the budget spent."""
        raise NotImplementedError
