"""Lambda-shaped window: the first tokens and the last ones, with bounded distances."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness import ConfigError, Context, Heads, Method, Reach, check_limits, hookimpl, trained_length


class LambdaWindow(Context):
    """LM-Infinite: reads the first `sinks` tokens and a window, no distance beyond `limit`.

    Paper: Han et al. 2023, arXiv:2308.16137, section 4
    Raises: ConfigError if window or limit is below 1
    State: the cache holds the first tokens and the window, whatever the length
    """

    name = "lambda_window"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        sinks: int = 10
        """First tokens that stay readable."""
        window: int = 256
        """Last tokens that are read, the query included."""
        limit: int | None = None
        """Largest distance, in tokens; null = the trained length, which it may not exceed."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "context", "limit", null="the trained length")
            if self.window < 1 or self.sinks < 0:
                raise ConfigError(
                    f"context.window={self.window} must be at least 1, sinks={self.sinks} not negative"
                )

    config: Config

    def reach(self) -> Reach:
        return self.config.sinks, self.config.window

    @classmethod
    def longest_distance(cls, config: Any, trained: int) -> int:
        return config.limit or 0

    def before_install(self, model: nn.Module) -> None:
        self.limit = self.config.limit or trained_length(model)

    def attend(self, heads: Heads) -> Tensor:
        distance = heads.distance()
        first = heads.key_position_BS[:, None, None, :] < self.config.sinks
        reads, near = (distance < self.config.window) | first, distance < self.limit
        return heads.read(heads.plain(near & reads), heads.at(self.limit, ~near & reads))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LambdaWindow]
