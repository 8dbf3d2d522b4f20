"""Rotary embedding as YaRN scales it: slow rotations are interpolated, fast ones kept, scores cooled."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Method, hookimpl
from harness_plugins.position._rotary import RotaryPosition, check_factor


class RopeYarn(RotaryPosition):
    """NTK-by-parts interpolation with an attention temperature, as part of a model's shape.

    Paper: Peng et al. 2023, arXiv:2309.00071, definitions 2 and 3, equation 22
    Raises: ConfigError for an odd rotated width, a factor below 1, or turns out of order
    """

    name = "rope_yarn"

    @dataclass(frozen=True, kw_only=True)
    class Config(RotaryPosition.Config):
        factor: float = 4.0
        """Slow rotations take this many times as many tokens."""
        original_length: int = 4096
        """Length the model was trained on first, in tokens."""
        fast: float = 32.0
        """Rotations that turn more often than this in the original length are kept (beta)."""
        slow: float = 1.0
        """Rotations that turn less often than this are interpolated fully (alpha)."""
        attention_factor: float | None = None
        """Factor on cosines and sines; null is 0.1 ln(factor) + 1."""
        whole_pairs: bool = True
        """Whether the ramp between both begins and ends at whole pairs of components."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)
            if not 0 < self.slow <= self.fast or self.original_length < 1:
                raise ConfigError(
                    f"position.slow={self.slow} must be positive and at most fast={self.fast}, and "
                    f"position.original_length={self.original_length} at least 1"
                )

    config: Config

    def frequencies(self) -> Tensor:
        low, high = self._pair(self.config.fast), self._pair(self.config.slow)
        if self.config.whole_pairs:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.width - 1)
        high = high + 0.001 if low == high else high  # no division by zero
        ramp = ((torch.arange(self.width // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
        kept = super().frequencies()
        return kept / self.config.factor * ramp + kept * (1 - ramp)

    def temperature(self) -> float:
        if self.config.attention_factor is not None:
            return self.config.attention_factor
        return 0.1 * math.log(self.config.factor) + 1

    def _pair(self, turns: float) -> float:
        """Which pair turns this often within the original length."""
        wavelength = self.config.original_length / (turns * 2 * math.pi)
        return self.width * math.log(wavelength) / (2 * math.log(self.config.base))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeYarn]
