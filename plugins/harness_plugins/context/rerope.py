"""ReRoPE: distances beyond a window are all read as the window."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Context, Heads, Method, hookimpl


class ReRope(Context):
    """Rectified rotary positions: distance min(q - k, window).

    Paper: Su 2023, kexue.fm/archives/9708
    Raises: ConfigError if window is below 1
    """

    name = "rerope"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        window: int = 128
        """Longest distance that is told apart, in tokens; at most half the trained length works well."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.window < 1:
                raise ConfigError(f"context.window={self.window} must be at least 1")

    config: Config

    def attend(self, heads: Heads) -> Tensor:
        window = self.config.window
        far = heads.scores(
            torch.full_like(heads.query_position_BT, window), torch.zeros_like(heads.key_position_BS)
        )
        near = heads.distance() < window
        return heads.mix(torch.where(near, heads.plain_scores(), far))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ReRope]
