"""Ramp: a small batch at first, growing to the full one."""

from dataclasses import dataclass

from harness import BatchSchedule, ConfigError, Method, hookimpl


class Ramp(BatchSchedule):
    """Linear growth of the batch over the first part of the run (GPT-3 went from 32 K to 3.2 M tokens).

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix B
    Raises: ConfigError if a share lies outside (0, 1] or multiple is below 1
    """

    name = "ramp"

    @dataclass(frozen=True, kw_only=True)
    class Config(BatchSchedule.Config):
        start_share: float = 0.25
        """First batch as a share of the full one (0 to 1)."""
        ramp_share: float = 0.2
        """Share of the run over which it grows (0 to 1)."""
        multiple: int = 1
        """Sizes are rounded up to a multiple of this; use the number of processes that share a batch."""

        def __post_init__(self) -> None:
            for name in ("start_share", "ramp_share"):
                if not 0 < getattr(self, name) <= 1:
                    raise ConfigError(f"batch_schedule.{name}={getattr(self, name)} must lie in (0, 1]")
            if self.multiple < 1:
                raise ConfigError(f"batch_schedule.multiple={self.multiple} must be at least 1")

    config: Config

    def batch_size(self, final: int, progress: float) -> int:
        start, multiple = self.config.start_share, self.config.multiple
        share = start + (1 - start) * min(progress / self.config.ramp_share, 1.0)
        rounded = -(-round(final * share) // multiple) * multiple
        return min(max(rounded, multiple), final)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Ramp]
