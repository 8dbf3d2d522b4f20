"""What the stages that train share: their options, and the way they call the loop."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.axes import TRAINING_AXES
from harness.stage import Stage, Work
from harness.training.contract import BatchSource, Loss
from harness.training.loop import train
from harness.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings, Stage.Config):
    """Options of a stage that trains; a stage narrows or changes the defaults."""

    stabilizers: list[str] | None = None
    """Which of the chosen stabilizers act in this stage, by name; null = all."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig(TrainingConfig):
    """Options of a stage that learns from conversations or preferences."""

    decontaminate: bool = True
    """Whether training entries that share 13-grams with test items of the cell's evaluators are dropped."""


def run_training(
    work: Work, model: nn.Module, source: BatchSource, loss: Loss, settings: TrainingConfig | None = None
) -> dict[str, Any]:
    """Train a model with the stage's own methods; returns measured facts."""
    return train(model, source, loss, work=work, settings=settings or work.config)


def in_precision(work: Work) -> AbstractContextManager[Any]:
    """The format that the stage's training computes in, for what is measured beside it."""
    context: AbstractContextManager[Any] = (
        work.one("precision").build().autocast(torch.device(work.device).type)
    )
    return context


__all__ = ["TRAINING_AXES", "TrainingConfig", "TuningConfig", "in_precision", "run_training"]
