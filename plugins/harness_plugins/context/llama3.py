"""Llama 3's scaling: slow rotations are interpolated, fast ones kept, those between in part."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness import ConfigError, Context, Method, Rotary, hookimpl


class Llama3(Context):
    """Divides frequencies of long wavelengths by the factor, with a smooth band to those that are kept.

    Paper: Grattafiori et al. 2024, arXiv:2407.21783 (Llama 3.1), and its released code
    Raises: ConfigError if low_freq_factor is not below high_freq_factor
    """

    name = "llama3"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        low_freq_factor: float = 1.0
        """Rotations that turn less often than this in the trained length are interpolated fully."""
        high_freq_factor: float = 4.0
        """Rotations that turn more often than this in the trained length are kept."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.low_freq_factor < self.high_freq_factor:
                raise ConfigError(
                    f"context.low_freq_factor={self.low_freq_factor} must be positive and below "
                    f"high_freq_factor={self.high_freq_factor}"
                )

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        low, high = self.config.low_freq_factor, self.config.high_freq_factor
        turns = rotary.inv_freq * rotary.max_length / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        inv_freq = rotary.inv_freq * ((1 - kept) / self.config.factor + kept)
        return replace(rotary, inv_freq=torch.as_tensor(inv_freq))

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "rope_theta": rotary.base,
            "factor": float(self.config.factor),
            "low_freq_factor": float(self.config.low_freq_factor),
            "high_freq_factor": float(self.config.high_freq_factor),
            "original_max_position_embeddings": rotary.max_length,
        }


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Llama3]
