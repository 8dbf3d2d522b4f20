"""Polynomial: warm-up, then a power of the time left down to a share of the peak."""

from dataclasses import dataclass

from harness import ConfigError, Method, Schedule, hookimpl


class Polynomial(Schedule):
    """Falls to `final_share` of the peak as (1 - time) ** power; a power of 1 is linear.

    Paper: Chen et al. 2016, arXiv:1606.00915 (the "poly" policy)
    Raises: ConfigError if power is not positive, or final_share lies outside [0, 1]
    """

    name = "polynomial"

    @dataclass(frozen=True, kw_only=True)
    class Config(Schedule.Config):
        power: float = 0.9
        """Exponent of the share of time left; above 1 it falls early, below 1 late."""
        final_share: float = 0.0
        """Learning rate at the end as a share of the peak (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.power > 0:
                raise ConfigError(f"schedule.power={self.power} must be positive")
            if not 0 <= self.final_share <= 1:
                raise ConfigError(f"schedule.final_share={self.final_share} must lie in [0, 1]")

    config: Config

    def decay(self, progress: float) -> float:
        final = self.config.final_share
        return float(final + (1 - final) * (1 - progress) ** self.config.power)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Polynomial]
