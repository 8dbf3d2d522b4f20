"""LongRoPE: every rotation has a factor of its own, another one where sequences are short."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from harness import (
    Context,
    Method,
    Rotary,
    check_rotation_factors,
    hookimpl,
    rescale_dynamically,
    rotation_factors,
    set_length,
)


class LongRope(Context):
    """Divides each frequency by its own factor, found by a search; sequences within the trained length by
    others, or by none.

    Paper: Ding et al. 2024, arXiv:2402.13753, sections 3.2 and 3.3
    Differs: no search; without given factors the long ones are those of NTK, where the paper's search starts
    Raises: ConfigError where there are not as many factors as rotations
    """

    name = "longrope"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        long: list[float] = field(default_factory=list)
        """What each frequency is divided by beyond the trained length; empty = NTK's s^(2i / (R - 2))."""
        short: list[float] = field(default_factory=list)
        """What each frequency is divided by within it; empty = 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("long", "short"):
                check_rotation_factors(getattr(self, name), where=f"context.{name}")

    config: Config

    def apply(self, model: nn.Module) -> nn.Module:
        length = self.target_length(model)
        rescale_dynamically(model, self.scale)
        set_length(model, length)
        return model

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        factors = self.factors(rotary)[length > rotary.max_length].to(rotary.inv_freq)
        return replace(
            rotary,
            inv_freq=rotary.inv_freq / factors,
            attention_factor=rotary.attention_factor * self.temperature(rotary),
        )

    def factors(self, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """(short, long) factors of all rotations."""
        config, pairs = self.config, rotary.head_dim // 2
        short = rotation_factors(config.short, pairs=pairs, where="context.short")
        return short, rotation_factors(config.long, pairs=pairs, ntk=config.factor, where="context.long")

    def temperature(self, rotary: Rotary) -> float:
        """What cos and sin are multiplied by, at any length (section 3.3)."""
        return math.sqrt(1 + math.log(self.config.factor) / math.log(rotary.max_length))

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        short, long = self.factors(rotary)
        return {
            "rope_type": "longrope",
            "rope_theta": rotary.base,
            "factor": float(self.config.factor),
            "original_max_position_embeddings": rotary.max_length,
            "short_factor": short.tolist(),
            "long_factor": long.tolist(),
        }


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LongRope]
