"""Parallel context windows: the context is read in pieces, the task's tokens read all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import ConfigError, Context, Heads, Method, hookimpl, trained_length


class ParallelContextWindows(Context):
    """Windows reuse the same positions and do not see each other; the tokens after them see everything.

    Paper: Ratner et al. 2022, arXiv:2212.10947, section 2
    Differs: windows are cut at fixed positions, so that a cache can grow; task tokens start after the last
    Raises: ConfigError if the task leaves no room for a window
    """

    name = "parallel_context_windows"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        task_length: int = 0
        """Tokens at the end that read all windows, prompt's end and answer together; 0 = a quarter of the
        trained length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.task_length < 0:
                raise ConfigError(f"context.task_length={self.task_length} must not be negative")

    config: Config

    def before_install(self, model: nn.Module) -> None:
        self.window, self.num_windows, _ = self._split(trained_length(model))

    def target_length(self, model: nn.Module) -> int:
        window, num_windows, task = self._split(trained_length(model))
        return window * num_windows + task

    def _split(self, trained: int) -> tuple[int, int, int]:
        """(tokens of a window, windows, tokens of the task)."""
        task = self.config.task_length or trained // 4
        window = trained - task
        if window < 1:
            raise ConfigError(
                f"context.task_length={task} leaves no window within the trained length of {trained} tokens"
            )
        return window, max(1, int((trained * self.config.factor - task) // window)), task

    def attend(self, heads: Heads) -> Tensor:
        end = self.window * self.num_windows
        places = [
            torch.where(position < end, position % self.window, position - end + self.window)
            for position in (heads.query_position_BT, heads.key_position_BS)
        ]
        query, key = heads.query_position_BT[:, None, :, None], heads.key_position_BS[:, None, None, :]
        same = query.div(self.window, rounding_mode="floor") == key.div(self.window, rounding_mode="floor")
        return heads.mix(heads.scores(*places), same | (query >= end))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ParallelContextWindows]
