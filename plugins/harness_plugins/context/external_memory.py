"""External memory: a window, and the nearest of all earlier keys."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import ConfigError, Context, Heads, Method, hookimpl, trained_length


class ExternalMemory(Context):
    """Reads a window and, for every query and head, the `k` earlier keys of the largest scores.

    Paper: Wu et al. 2022, arXiv:2203.08913, section 3.1
    Differs: one softmax over both instead of a learned gate, so that no training is needed; distances to
    remembered keys are capped at the trained length
    Raises: ConfigError if window is below 1 or k negative
    """

    name = "external_memory"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        window: int = 128
        """Last tokens that are always read, the query included."""
        k: int = 32
        """Keys fetched from before the window."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.window < 1 or self.k < 0:
                raise ConfigError(
                    f"context.window={self.window} must be at least 1, context.k={self.k} not negative"
                )

    config: Config

    def before_install(self, model: nn.Module) -> None:
        self.limit = trained_length(model)

    def attend(self, heads: Heads) -> Tensor:
        distance = heads.distance()
        capped = heads.scores(
            torch.full_like(heads.query_position_BT, self.limit), torch.zeros_like(heads.key_position_BS)
        )
        scores = torch.where(distance < self.limit, heads.plain_scores(), capped)
        near = distance < self.config.window
        remembered = scores.masked_fill(near | ~heads.visible_BNTS, float("-inf"))
        k = min(self.config.k, scores.shape[-1])
        if k == 0:
            return heads.mix(scores, near)
        chosen = torch.zeros_like(remembered, dtype=torch.bool)
        chosen.scatter_(-1, remembered.topk(k, dim=-1).indices, True)
        return heads.mix(scores, near | chosen)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ExternalMemory]
