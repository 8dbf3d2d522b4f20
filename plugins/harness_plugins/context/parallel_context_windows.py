"""Parallel context windows: the context is read in pieces, the task's tokens read all of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Context, Heads, Method, Placement, check_limits, hookimpl, trained_length


class ParallelContextWindows(Context):
    """Windows reuse the same positions and do not see each other; the task's tokens after them see all.

    A prompt's last `task_length` tokens are its task, and so is all that follows. What stands before is cut
    into as few windows of equal length as fit; a prompt within the trained length is read as trained.

    Paper: Ratner et al. 2022, arXiv:2212.10947, section 2
    State: the model says that what a token reads depends on its sequence's length (`follows_length`)
    Raises: ConfigError if task and answer leave no room for a window
    """

    name = "parallel_context_windows"

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        task_length: int | None = None
        """Tokens at a prompt's end that read all windows; null = an eighth of the trained length."""
        answer_length: int | None = None
        """Positions kept for the answer; null = an eighth of the trained length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_limits(self, "context", "task_length", "answer_length")

    config: Config

    @classmethod
    def extended(cls, config: Any, trained: int) -> int:
        window, task, answer = cls.split(config, trained)
        windows = max(1, int((trained * config.factor - task - answer) // window))
        return window * windows + task + answer

    @classmethod
    def split(cls, config: Any, trained: int) -> tuple[int, int, int]:
        """(longest window, tokens of the task, positions for the answer)."""
        task, answer = config.task_length or trained // 8, config.answer_length or trained // 8
        if trained - task - answer < 1:
            raise ConfigError(
                f"context.task_length={task} and answer_length={answer} leave no window within the trained "
                f"length of {trained} tokens"
            )
        return trained - task - answer, task, answer

    def before_install(self, model: nn.Module) -> None:
        self.trained = trained_length(model)
        self.window, self.task, _ = self.split(self.config, self.trained)
        model.follows_length = True  # type: ignore[assignment]

    def attend(self, heads: Heads) -> Tensor:
        length_B1 = heads.lengths()[:, None]
        context_B1 = (length_B1 - self.task).clamp(min=1)
        windows_B1 = -(-context_B1 // self.window)
        size_B1 = -(-context_B1 // windows_B1)
        # Within the trained length there is one window, and no end to it.
        short_B1 = length_B1 <= self.trained
        context_B1 = torch.where(short_B1, torch.iinfo(torch.long).max // 2, context_B1)
        size_B1 = torch.where(short_B1, context_B1, size_B1)

        def place(position_BT: Tensor) -> Tensor:
            after = size_B1 + position_BT - context_B1
            return torch.where(position_BT < context_B1, position_BT % size_B1, after)

        query, key = heads.query_position_BT, heads.key_position_BS
        same = (query.clamp(min=0) // size_B1)[:, None, :, None] == (key.clamp(min=0) // size_B1)[
            :, None, None, :
        ]
        task = (query >= context_B1)[:, None, :, None]
        return heads.read(Placement(place(query), place(key), same | task))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ParallelContextWindows]
