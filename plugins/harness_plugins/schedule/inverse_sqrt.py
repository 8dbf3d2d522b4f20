"""Inverse square root: warm-up, then a decay with the root of time."""

from dataclasses import dataclass

from harness import ConfigError, Method, Schedule, hookimpl


class InverseSqrt(Schedule):
    """Falls as 1 / sqrt(time) once the warm-up is over (T5, PaLM); needs no known end.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 3; Raffel et al. 2019, arXiv:1910.10683, 3.1.2
    Raises: ConfigError if timescale_share is not positive
    """

    name = "inverse_sqrt"

    @dataclass(frozen=True, kw_only=True)
    class Config(Schedule.Config):
        timescale_share: float = 0.05
        """Time after which the rate has fallen by sqrt(2), as a share of the run."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.timescale_share > 0:
                raise ConfigError(f"schedule.timescale_share={self.timescale_share} must be positive")

    config: Config

    def decay(self, progress: float) -> float:
        since_warmup = progress * (1 - self.config.warmup_share)
        return float((1 + since_warmup / self.config.timescale_share) ** -0.5)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [InverseSqrt]
