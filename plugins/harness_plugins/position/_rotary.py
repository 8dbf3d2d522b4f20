"""What rotary schemes share: one set of inverse frequencies, and its cosines for the layers of a forward."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness import ConfigError, ModelSpec, Position, cos_sin, inverse_frequencies, rotate_pairs


class RotaryPosition(Position):
    """Queries and keys rotated by position times frequency; a scheme says only which frequencies.

    Paper: Su et al. 2021, arXiv:2104.09864, section 3.2
    Differs: pairs component i with i + R/2, as Llama's checkpoints do; equal up to a permutation
    State: cos and sin of the last positions asked for, so that layers of one forward share them
    Raises: ConfigError for an odd rotated width
    """

    provides = frozenset({"rotary"})
    changes = frozenset({"rotary"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Position.Config):
        base: float = 10000.0
        """Base b of the wavelengths 2 pi b^(2i/R), in tokens."""
        fraction: float = 1.0
        """Share of each head's components that is rotated."""

        def __post_init__(self) -> None:
            if self.base <= 1:
                raise ConfigError(f"position.base={self.base} must be above 1")
            if not 0 < self.fraction <= 1:
                raise ConfigError(f"position.fraction={self.fraction} must lie in (0, 1]")

    config: Config

    def build(self, spec: ModelSpec) -> None:
        width = int((spec.rotary_dim or spec.head_dim) * self.config.fraction)
        if width % 2 or width == 0:
            raise ConfigError(
                f"position={self.name} rotates pairs, but model.head_dim={spec.head_dim} times "
                f"position.fraction={self.config.fraction} is {width}; make it even"
            )
        self.width = width
        self.attention_factor = self.temperature()
        self.register_buffer("inv_freq", self.frequencies(), persistent=False)
        self._last: tuple[Any, Tensor, Tensor] | None = None

    inv_freq: Tensor

    def frequencies(self) -> Tensor:
        """Inverse frequencies in radians a position.

        Shapes: -> R/2
        """
        return inverse_frequencies(self.width, self.config.base)

    def temperature(self) -> float:
        """Factor on cosines and sines."""
        return 1.0

    def reset_buffers(self) -> None:
        self.inv_freq = self.frequencies().to(self.inv_freq.device)

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        if self._last is None or self._last[0] is not position_BT or self._last[1].dtype != x_BNTH.dtype:
            cos, sin = cos_sin(self.inv_freq, position_BT, dtype=x_BNTH.dtype, factor=self.attention_factor)
            self._last = (position_BT, cos, sin)
        return rotate_pairs(x_BNTH, self._last[1], self._last[2])


class FollowingRotary(RotaryPosition):
    """Rotary positions whose frequencies follow how long each row is, neighbours of other lengths apart.

    Differs: cached keys keep the rotation of the step that made them, as in transformers' forward pass
    """

    follows_length = True

    def frequencies_of(self, length_B: Tensor) -> Tensor:
        """Inverse frequencies of rows of so many tokens.

        Shapes: -> B R/2
        """
        raise NotImplementedError

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        if self._last is None or self._last[0] is not position_BT or self._last[1].dtype != x_BNTH.dtype:
            inv_freq_B11F = self.frequencies_of(position_BT.amax(dim=1) + 1)[:, None, None]
            factor, dtype = self.attention_factor, x_BNTH.dtype
            self._last = (position_BT, *cos_sin(inv_freq_B11F, position_BT, dtype=dtype, factor=factor))
        return rotate_pairs(x_BNTH, self._last[1], self._last[2])


def check_factor(factor: float) -> None:
    """Refuse to shorten a context."""
    if not 1 <= factor < float("inf"):
        raise ConfigError(f"position.factor={factor} must be at least 1")
