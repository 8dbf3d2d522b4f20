"""Length ramp: short contexts first, the full window later."""

from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Curriculum, Method, SampleReader, hookimpl


class LengthRamp(Curriculum):
    """Windows are cut into stretches that see only themselves; the stretches grow linearly.

    Paper: Li et al. 2021, arXiv:2108.06084 (sequence length warm-up)
    Differs: a step keeps its number of tokens, so that budgets and batches stay comparable
    """

    name = "length_ramp"

    @dataclass(frozen=True, kw_only=True)
    class Config(Curriculum.Config):
        start: int = 32
        """Tokens of a stretch at the beginning."""
        share: float = 0.5
        """Share of the run until stretches are as long as the window (0 to 1]."""

        def __post_init__(self) -> None:
            if self.start < 1:
                raise ConfigError(f"curriculum.start={self.start} must be at least 1")
            if not 0 < self.share <= 1:
                raise ConfigError(f"curriculum.share={self.share} must lie in (0, 1]")

    config: Config

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        return order_R

    def visible(self, length: int, progress: float) -> int:
        done = min(1.0, progress / self.config.share)
        return min(length, int(self.config.start + done * max(0, length - self.config.start)))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LengthRamp]
