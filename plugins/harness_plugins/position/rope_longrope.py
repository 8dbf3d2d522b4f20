"""Rotary embedding as LongRoPE scales it: a factor for every rotation, and another in short sequences."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness import ConfigError, Method, check_rotation_factors, hookimpl, rotation_factors
from harness_plugins.position._rotary import FollowingRotary, check_factor


class RopeLongrope(FollowingRotary):
    """Frequencies divided by one list of factors up to the original length, by another beyond it.

    Paper: Ding et al. 2024, arXiv:2402.13753, sections 3.2 and 3.3
    Differs: rows of a batch each follow their own length, where transformers takes the longest one's;
    transformers' Phi-3 reads the prompt anew at the step that passes the original length
    Raises: ConfigError for an odd rotated width, a factor below 1, or not as many factors as rotations
    """

    name = "rope_longrope"

    @dataclass(frozen=True, kw_only=True)
    class Config(FollowingRotary.Config):
        factor: float = 2.0
        """The longest sequence as a multiple of the original length; decides the temperature."""
        original_length: int = 4096
        """Length up to which the short factors hold, in tokens."""
        long: list[float] = field(default_factory=list)
        """What each frequency is divided by beyond it; empty = NTK's s^(2i / (R - 2))."""
        short: list[float] = field(default_factory=list)
        """What each frequency is divided by within it; empty = 1."""
        attention_factor: float | None = None
        """Factor on cosines and sines; null is sqrt(1 + ln(factor) / ln(original_length))."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)
            if self.original_length < 2:
                raise ConfigError(f"position.original_length={self.original_length} must be at least 2")
            for name in ("long", "short"):
                check_rotation_factors(getattr(self, name), where=f"position.{name}")

    config: Config

    def frequencies(self) -> Tensor:
        return super().frequencies() / self._factors("short")

    def frequencies_of(self, length_B: Tensor) -> Tensor:
        plain = super().frequencies().to(length_B.device)
        short, long = (plain / self._factors(name).to(plain) for name in ("short", "long"))
        return torch.where(length_B[:, None] > self.config.original_length, long, short)

    def temperature(self) -> float:
        if self.config.attention_factor is not None:
            return self.config.attention_factor
        return math.sqrt(1 + math.log(self.config.factor) / math.log(self.config.original_length))

    def _factors(self, name: str) -> Tensor:
        """The short or the long factor of every rotation."""
        return rotation_factors(
            getattr(self.config, name),
            pairs=self.width // 2,
            ntk=self.config.factor if name == "long" else 1.0,
            where=f"position.{name}",
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeLongrope]
