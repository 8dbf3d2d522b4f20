"""Spike rollback: restarts before a loss spike and skips the data that was seen since."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness import ConfigError, DivergedError, Method, Stabilizer, Verdict, hookimpl


class SpikeRollback(Stabilizer):
    """Goes back to the last checkpoint before a step whose loss leaps, and on with new data.

    Paper: Chowdhery et al. 2022, arXiv:2204.02311, section 5.1; Zhang et al. 2022, arXiv:2205.01068
    State: the last losses and the number of rollbacks
    Raises: ConfigError for a factor of 1 or less; DivergedError after max_rollbacks
    """

    name = "spike_rollback"
    changes = frozenset({"data_order"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Stabilizer.Config):
        factor: float = 1.5
        """A spike is a loss above this multiple of the median of the last steps, or not finite."""
        window: int = 20
        """Steps whose median is the measure; no spike is seen before that many."""
        max_rollbacks: int = 10
        """Rollbacks of one run after which it has diverged."""

        def __post_init__(self) -> None:
            if self.factor <= 1:
                raise ConfigError(f"stabilizer.spike_rollback.factor={self.factor} must exceed 1")
            if self.window < 1 or self.max_rollbacks < 1:
                raise ConfigError(
                    "stabilizer.spike_rollback.window and .max_rollbacks must be at least 1, "
                    f"not {self.window} and {self.max_rollbacks}"
                )

    config: Config

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.losses: list[float] = []
        self.rollbacks = 0

    def verdict(self, step: int, loss: float) -> Verdict:
        full = len(self.losses) >= self.config.window
        leaps = full and loss > self.config.factor * median(self.losses) > 0
        if math.isfinite(loss) and not leaps:
            self.losses = [*self.losses, loss][-self.config.window :]
            return Verdict.proceed
        self.rollbacks += 1
        if self.rollbacks > self.config.max_rollbacks:
            raise DivergedError(step, f"the loss leapt again after {self.config.max_rollbacks} rollbacks")
        return Verdict.rollback

    def state_dict(self) -> dict[str, object]:
        return {"losses": self.losses, "rollbacks": self.rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.rollbacks = state["losses"], state["rollbacks"]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SpikeRollback]
