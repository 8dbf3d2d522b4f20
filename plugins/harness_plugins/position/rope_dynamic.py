"""Rotary embedding whose base grows with the sequence at hand."""

from dataclasses import dataclass

from torch import Tensor

from harness import ConfigError, Method, hookimpl, inverse_frequencies, known
from harness_plugins.position._rotary import RotaryPosition, check_factor


class RopeDynamic(RotaryPosition):
    """NTK-aware scaling by the length of each call; sequences up to the original length are read as trained.

    Paper: emozilla 2023, in Peng et al. 2023, arXiv:2309.00071, appendix B.2
    Differs: cached keys keep the rotation of the step that made them, as in transformers
    Raises: ConfigError for an odd rotated width or one of 2, or a factor below 1
    """

    name = "rope_dynamic"

    @dataclass(frozen=True, kw_only=True)
    class Config(RotaryPosition.Config):
        factor: float = 2.0
        """How much faster than the length the stretch grows."""
        original_length: int | None = None
        """Length up to which nothing changes, in tokens; null is model.max_length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)

    config: Config

    def frequencies(self) -> Tensor:
        if self.width == 2:
            raise ConfigError(
                "position=rope_dynamic needs more than one pair to rotate; raise model.head_dim"
            )
        self._length = self._original()
        return super().frequencies()

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        if self._last is None or self._last[0] is not position_BT:
            length = max(known(position_BT.max() + 1, otherwise=0), self._original())
            if length != self._length:
                self._length, self._last = length, None
                self.inv_freq = inverse_frequencies(self.width, self._base(length), position_BT.device)
        return super().rotate(x_BNTH, position_BT, is_key=is_key)

    def _original(self) -> int:
        return self.config.original_length or self.spec.max_length

    def _base(self, length: int) -> float:
        factor = self.config.factor
        stretch = factor * length / self._original() - (factor - 1)
        return float(self.config.base * stretch ** (self.width / (self.width - 2)))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeDynamic]
