"""Warm-up, stable, decay: constant but for the two ends."""

import math
from dataclasses import dataclass
from enum import Enum

from harness import ConfigError, Method, Schedule, hookimpl


class Shape(Enum):
    """How the last part falls."""

    linear = "linear"
    cosine = "cosine"


class WarmupStableDecay(Schedule):
    """Holds the peak, then falls in the last part of the run.

    Paper: Hu et al. 2024, arXiv:2404.06395, section 4.2
    Raises: ConfigError if the shares do not fit into one run
    """

    name = "warmup_stable_decay"

    @dataclass(frozen=True, kw_only=True)
    class Config(Schedule.Config):
        decay_share: float = 0.1
        """Share of the run spent falling (0 to 1)."""
        final_share: float = 0.1
        """Learning rate at the end as a share of the peak (0 to 1)."""
        shape: Shape = Shape.linear
        """linear or cosine."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.decay_share <= 1 - self.warmup_share:
                raise ConfigError(
                    f"schedule.decay_share={self.decay_share} must be positive and leave room for "
                    f"warmup_share={self.warmup_share} within one run"
                )
            if not 0 <= self.final_share <= 1:
                raise ConfigError(f"schedule.final_share={self.final_share} must lie in [0, 1]")

    config: Config

    def decay(self, progress: float) -> float:
        share = self.config.decay_share / (1 - self.config.warmup_share)
        fallen = max(0.0, (progress - (1 - share)) / share)
        if self.config.shape is Shape.cosine:
            fallen = 0.5 * (1 - math.cos(math.pi * fallen))
        return 1 - (1 - self.config.final_share) * fallen


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WarmupStableDecay]
