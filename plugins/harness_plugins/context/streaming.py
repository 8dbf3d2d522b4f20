"""Streaming: attention sinks and a rolling window, at positions within the cache."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness import (
    ConfigError,
    Context,
    Heads,
    Method,
    Placement,
    Reach,
    check_limits,
    hookimpl,
    trained_length,
)


class Streaming(Context):
    """StreamingLLM: reads the first `sinks` tokens and a window; positions count what is read.

    Paper: Xiao et al. 2023, arXiv:2309.17453, section 3.2
    Raises: ConfigError if window is below 1
    State: the cache holds the first tokens and the window, whatever the length
    """

    name = "streaming"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        sinks: int = 4
        """First tokens that stay readable."""
        window: int | None = None
        """Last tokens that are read, the query included; null = what the first ones leave of the trained
        length, which both together may not exceed."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "context", "window", null="what the sinks leave of the trained length")
            if self.sinks < 0:
                raise ConfigError(f"context.sinks={self.sinks} must not be negative")

    config: Config

    @classmethod
    def longest_distance(cls, config: Any, trained: int) -> int:
        return int(config.sinks + (config.window or 1))

    def before_install(self, model: nn.Module) -> None:
        self.window = self.config.window or max(1, trained_length(model) - self.config.sinks)

    def reach(self) -> Reach:
        return self.config.sinks, self.window

    def attend(self, heads: Heads) -> Tensor:
        sinks, window = self.config.sinks, self.window
        first = heads.key_position_BS[:, None, None, :] < sinks
        # The query is the last of sinks + window cached tokens, once there are that many.
        in_cache_BT = heads.query_position_BT.clamp(max=sinks + window - 1)
        return heads.read(
            heads.plain((heads.distance() < window) & ~first),
            Placement(in_cache_BT, heads.key_position_BS, first),
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Streaming]
