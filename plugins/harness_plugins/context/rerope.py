"""ReRoPE: distances beyond a window are all read as the window."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness import Context, Heads, Method, check_limits, hookimpl, trained_length


class ReRope(Context):
    """Rectified rotary positions: distance min(q - k, window).

    Paper: Su 2023, kexue.fm/archives/9708
    Raises: ConfigError if window is below 1
    """

    name = "rerope"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        window: int | None = None
        """Longest distance that is told apart, in tokens; null = half the trained length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "context", "window", null="half the trained length")

    config: Config

    @classmethod
    def longest_distance(cls, config: Any, trained: int) -> int:
        return config.window or 0

    def before_install(self, model: nn.Module) -> None:
        self.window = self.config.window or max(1, trained_length(model) // 2)

    def attend(self, heads: Heads) -> Tensor:
        near = heads.distance() < self.window
        return heads.read(heads.plain(near), heads.at(self.window, ~near))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ReRope]
