"""Basis truncation: slow rotations are stopped or held at a floor."""

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
        low: float = 0.0
        """Frequencies below this become 0; 0 = 2 pi / (8 x trained length)."""
        high: float = 0.0
        """Frequencies of at least this are kept; 0 = 2 pi / (trained length)."""
        floor: float = 0.0
        """What frequencies in between become; 0 = 2 pi / (target length x 2)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if min(self.low, self.high, self.floor) < 0 or (self.high and self.low > self.high):
                raise ConfigError(
                    f"context.low={self.low} and high={self.high} must be in order, none negative"
                )

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        turn = 2 * torch.pi
        low = self.config.low or turn / (8 * rotary.max_length)
        high = self.config.high or turn / rotary.max_length
        floor = self.config.floor or turn / (2 * rotary.max_length * self.config.factor)
        kept = rotary.inv_freq
        held = torch.where(kept >= low, torch.full_like(kept, floor), torch.zeros_like(kept))
        return replace(rotary, inv_freq=torch.where(kept >= high, kept, held))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BasisTruncation]
