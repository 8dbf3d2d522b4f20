"""Basis truncation: slow rotations are stopped or held at a floor."""

import math
from dataclasses import dataclass, replace

import torch

from harness import ConfigError, Context, Method, Rotary, hookimpl


class BasisTruncation(Context):
    """Keeps frequencies of at least `high`, sets those below `low` to 0 and those between to `floor`.

    Paper: Pal et al. 2023, arXiv:2308.10882, section 4.1 ("truncated basis")
    Raises: ConfigError if low exceeds high
    Units: frequencies in radians per token; a rotation of period P has 2 pi / P
    """

    name = "basis_truncation"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        low: float | None = None
        """Frequencies below this become 0; null = 2 pi / (8 x trained length)."""
        high: float | None = None
        """Frequencies of at least this are kept; null = 2 pi / (trained length)."""
        floor: float | None = None
        """What frequencies in between become; null = 2 pi / (target length x 2)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            stated = [value for value in (self.low, self.high, self.floor) if value is not None]
            if any(value < 0 for value in stated) or (self.low or 0) > (self.high or math.inf):
                raise ConfigError(
                    f"context.low={self.low}, high={self.high} and floor={self.floor} must not be negative, "
                    "and low at most high"
                )

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        turn = 2 * torch.pi
        low = _or(self.config.low, turn / (8 * rotary.max_length))
        high = _or(self.config.high, turn / rotary.max_length)
        floor = _or(self.config.floor, turn / (2 * rotary.max_length * self.config.factor))
        kept = rotary.inv_freq
        held = torch.where(kept >= low, torch.full_like(kept, floor), torch.zeros_like(kept))
        return replace(rotary, inv_freq=torch.where(kept >= high, kept, held))


def _or(stated: float | None, derived: float) -> float:
    return derived if stated is None else stated


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BasisTruncation]
