"""Cosine: linear warm-up, then half a cosine down to a share of the peak."""

import math
from dataclasses import dataclass

from harness import ConfigError, Method, Schedule, hookimpl


class Cosine(Schedule):
    """Cosine decay to `final_share` of the peak, the survey's most common choice.

    Paper: Loshchilov and Hutter 2016, arXiv:1608.03983, section 3, without restarts
    Raises: ConfigError if final_share lies outside [0, 1]
    """

    name = "cosine"

    @dataclass(frozen=True, kw_only=True)
    class Config(Schedule.Config):
        final_share: float = 0.1
        """Learning rate at the end as a share of the peak (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.final_share <= 1:
                raise ConfigError(f"schedule.final_share={self.final_share} must lie in [0, 1]")

    config: Config

    def decay(self, progress: float) -> float:
        final = self.config.final_share
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Cosine]
