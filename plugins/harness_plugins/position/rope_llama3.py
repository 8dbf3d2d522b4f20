"""Rotary embedding as Llama 3.1 scales it: slow rotations are slowed further, fast ones are kept."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Method, hookimpl
from harness_plugins.position._rotary import RotaryPosition, check_factor


class RopeLlama3(RotaryPosition):
    """Divides frequencies by `factor` where a turn takes more than original_length / low_turns tokens, keeps
    them where it takes less than original_length / high_turns, and blends in between.

    Paper: Llama team 2024, arXiv:2407.21783, section 3.4.1; the blend is that of Meta's released code
    Raises: ConfigError for an odd rotated width, a factor below 1, or turns out of order
    """

    name = "rope_llama3"

    @dataclass(frozen=True, kw_only=True)
    class Config(RotaryPosition.Config):
        base: float = 500000.0
        """Base b of the wavelengths 2 pi b^(2i/R), in tokens."""
        factor: float = 8.0
        """Slow rotations take this many times as many tokens."""
        low_turns: float = 1.0
        """Rotations that turn less often within the original length are slowed in full."""
        high_turns: float = 4.0
        """Rotations that turn more often are kept."""
        original_length: int = 8192
        """Length the model was trained on first, in tokens."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)
            if not 0 < self.low_turns < self.high_turns or self.original_length < 1:
                raise ConfigError(
                    f"position.low_turns={self.low_turns} must be positive and below high_turns="
                    f"{self.high_turns}, and position.original_length={self.original_length} at least 1"
                )

    config: Config

    def frequencies(self) -> Tensor:
        config, kept = self.config, super().frequencies()
        turns = config.original_length * kept / (2 * math.pi)
        share = (turns - config.low_turns) / (config.high_turns - config.low_turns)
        share = share.clamp(0, 1)
        return torch.lerp(kept / config.factor, kept, share)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeLlama3]
