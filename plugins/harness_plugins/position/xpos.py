"""xPos: rotary embedding whose magnitude decays with the distance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import (
    ConfigError,
    Method,
    ModelSpec,
    Position,
    cos_sin,
    hookimpl,
    inverse_frequencies,
    rotate_pairs,
)


class Xpos(Position):
    """Queries times zeta^(n/s), keys times zeta^(-n/s), both rotated: scores decay as zeta^((q-k)/s).

    Paper: Sun et al. 2022, arXiv:2212.10554, section 2.2 and algorithm 1
    Differs: pairs component i with i + H/2, as Llama's checkpoints do; equal up to a permutation
    Error: keys grow as 0.29^(-n/s); beyond about 70 s positions float32 overflows
    Raises: ConfigError for an odd head width
    """

    name = "xpos"
    provides = frozenset({"rotary"})
    changes = frozenset({"rotary"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Position.Config):
        base: float = 10000.0
        """Base of the rotary wavelengths, in tokens."""
        gamma: float = 0.4
        """Smoothing of the decay over dimensions; zeta_i = (2i/H + gamma) / (1 + gamma)."""
        scale_base: float = 512.0
        """Distance s in tokens over which a component decays by zeta."""

        def __post_init__(self) -> None:
            if self.base <= 1 or self.scale_base <= 0:
                raise ConfigError(
                    f"position=xpos needs base > 1 and scale_base > 0; got {self.base} and {self.scale_base}"
                )

    config: Config

    def build(self, spec: ModelSpec) -> None:
        self.width = spec.rotary_dim or spec.head_dim
        if self.width % 2:
            raise ConfigError(
                f"position=xpos rotates pairs, but model.head_dim={self.width} is odd; make it even"
            )
        self.attention_factor = 1.0
        self.register_buffer("inv_freq", inverse_frequencies(self.width, self.config.base), persistent=False)

    inv_freq: Tensor

    def reset_buffers(self) -> None:
        self.inv_freq = inverse_frequencies(self.width, self.config.base, self.inv_freq.device)

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        cos, sin = cos_sin(self.inv_freq, position_BT, dtype=x_BNTH.dtype, factor=self.attention_factor)
        step = torch.arange(0, self.width, 2, device=x_BNTH.device, dtype=cos.dtype) / self.width
        zeta = (step + self.config.gamma) / (1 + self.config.gamma)
        power = position_BT[:, None, :, None].to(cos.dtype) / self.config.scale_base
        decay = zeta ** (-power if is_key else power)
        decay = torch.cat((decay, decay), dim=-1)
        return rotate_pairs(x_BNTH, cos * decay, sin * decay)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Xpos]
