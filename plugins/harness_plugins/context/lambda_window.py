"""Lambda-shaped window: the first tokens and the last ones, with bounded distances."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Context, Heads, Method, Reach, hookimpl


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
        limit: int = 256
        """Largest distance, in tokens; at most the trained length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.window < 1 or self.limit < 1 or self.sinks < 0:
                raise ConfigError(
                    f"context.window={self.window} and limit={self.limit} must be at least 1, "
                    f"sinks={self.sinks} not negative"
                )

    config: Config

    def reach(self) -> Reach:
        return self.config.sinks, self.config.window

    def attend(self, heads: Heads) -> Tensor:
        limit, distance = self.config.limit, heads.distance()
        far = heads.scores(
            torch.full_like(heads.query_position_BT, limit), torch.zeros_like(heads.key_position_BS)
        )
        scores = torch.where(distance < limit, heads.plain_scores(), far)
        first = heads.key_position_BS[:, None, None, :] < self.config.sinks
        return heads.mix(scores, (distance < self.config.window) | first)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LambdaWindow]
