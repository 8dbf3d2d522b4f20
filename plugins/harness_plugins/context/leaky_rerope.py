"""Leaky ReRoPE: distances beyond a window grow more slowly."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness import ConfigError, Context, Heads, Method, Placement, hookimpl


class LeakyReRope(Context):
    """Distance d up to the window, window + (d - window) / leak beyond it.

    Paper: Su 2023, kexue.fm/archives/9706
    Raises: ConfigError if window or leak is below 1
    """

    name = "leaky_rerope"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        window: int = 64
        """Distance up to which nothing changes, in tokens."""
        leak: float = 4.0
        """How many times more slowly distances grow beyond the window."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.window < 1 or self.leak < 1:
                raise ConfigError(
                    f"context.window={self.window} and context.leak={self.leak} must be at least 1"
                )

    config: Config

    @classmethod
    def longest_distance(cls, config: Any, trained: int) -> int:
        return int(config.window)

    def attend(self, heads: Heads) -> Tensor:
        window, leak = self.config.window, self.config.leak
        near = heads.distance() < window
        # (q + (leak - 1) window) / leak - k / leak = window + (q - k - window) / leak
        far_BT = (heads.query_position_BT + (leak - 1) * window) / leak
        return heads.read(heads.plain(near), Placement(far_BT, heads.key_position_BS / leak, ~near))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LeakyReRope]
