"""Linear: warm-up, then a straight line down to a share of the peak."""

from dataclasses import dataclass

from harness import ConfigError, Method, Schedule, hookimpl


class Linear(Schedule):
    """Linear decay to `final_share` of the peak (Galactica's choice).

    Paper: Taylor et al. 2022, arXiv:2211.09085, section 3
    Raises: ConfigError if final_share lies outside [0, 1]
    """

    name = "linear"

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
        return 1 - (1 - self.config.final_share) * progress


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Linear]
