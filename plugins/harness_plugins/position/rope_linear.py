"""Rotary embedding of positions divided by a factor."""

from dataclasses import dataclass

from torch import Tensor

from harness import Method, hookimpl
from harness_plugins.position._rotary import RotaryPosition, check_factor


class RopeLinear(RotaryPosition):
    """Rotary embedding at position / factor, as a model extended by interpolation was trained.

    Paper: Chen et al. 2023, arXiv:2306.15595, section 2.3
    Raises: ConfigError for an odd rotated width, or a factor below 1
    """

    name = "rope_linear"

    @dataclass(frozen=True, kw_only=True)
    class Config(RotaryPosition.Config):
        factor: float = 2.0
        """Tokens that share the distance of one."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)

    config: Config

    def frequencies(self) -> Tensor:
        return super().frequencies() / self.config.factor


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeLinear]
