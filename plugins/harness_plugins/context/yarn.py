"""YaRN: interpolates slow rotations, keeps fast ones, and cools the softmax."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness import ConfigError, Context, Method, Rotary, hookimpl


class Yarn(Context):
    """NTK-by-parts interpolation with an attention temperature.

    Paper: Peng et al. 2023, arXiv:2309.00071, definitions 2 and 3, equation 22
    Raises: ConfigError if slow exceeds fast
    """

    name = "yarn"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        fast: float = 32.0
        """Rotations that turn more often than this in the trained length are kept (beta)."""
        slow: float = 1.0
        """Rotations that turn less often than this are interpolated fully (alpha)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.slow <= self.fast:
                raise ConfigError(f"context.slow={self.slow} must be positive and at most fast={self.fast}")

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        stretch, half = self.config.factor, rotary.head_dim // 2
        low = max(math.floor(self._dimension(self.config.fast, rotary)), 0)
        high = min(math.ceil(self._dimension(self.config.slow, rotary)), rotary.head_dim - 1)
        ramp = (torch.arange(half, dtype=torch.float32) - low) / max(high - low, 0.001)
        interpolated = ramp.clamp(0, 1).to(rotary.inv_freq)
        inv_freq = rotary.inv_freq * (interpolated / stretch + 1 - interpolated)
        temperature = 0.1 * math.log(stretch) + 1 if stretch > 1 else 1.0
        return replace(rotary, inv_freq=inv_freq, attention_factor=rotary.attention_factor * temperature)

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "yarn",
            "rope_theta": rotary.base,
            "factor": float(self.config.factor),
            "original_max_position_embeddings": rotary.max_length,
            "beta_fast": float(self.config.fast),
            "beta_slow": float(self.config.slow),
        }

    def _dimension(self, turns: float, rotary: Rotary) -> float:
        """Which pair turns this often within the trained length."""
        wavelength = rotary.max_length / (turns * 2 * math.pi)
        return rotary.head_dim * math.log(wavelength) / (2 * math.log(rotary.base))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Yarn]
