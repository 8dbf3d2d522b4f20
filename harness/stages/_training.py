"""What the stages that train share: their options, and the way they call the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness.axes import TRAINING_AXES
from harness.axes.position import Position
from harness.method import Problem
from harness.stage import Stage, Work
from harness.training.contract import BatchSource, Loss
from harness.training.loop import train
from harness.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings, Stage.Config):
    """Options of a stage that trains; a stage narrows or changes the defaults."""

    stabilizers: list[str] | None = None
    """Which of the chosen stabilizers act in this stage, by name; null = all."""


def run_training(
    work: Work, model: nn.Module, source: BatchSource, loss: Loss, settings: TrainingConfig | None = None
) -> dict[str, Any]:
    """Train a model with the stage's own methods; returns measured facts."""
    return train(model, source, loss, work=work, settings=settings or work.config)


def beyond_table(meta_model: nn.Module | None, length: int, *, where: str) -> Iterator[Problem]:
    """A problem where sequences of a stage are longer than the model's position scheme can tell apart."""
    position = getattr(getattr(meta_model, "model", None), "position", None)
    longest = position.max_length() if isinstance(position, Position) else None
    if isinstance(position, Position) and longest is not None and length > longest:
        yield Problem(
            where=where,
            message=f"sequences of {length} tokens, but position={position.name} holds {longest} positions; "
            "keep to the table (model.max_length) or use a scheme without one (rope, alibi, sinusoidal)",
        )
    table = None if meta_model is None else table_length(meta_model)
    if table is not None and length > table:
        yield Problem(
            where=where,
            message=f"sequences of {length} tokens, but the pretrained model has a table of {table} "
            "positions; keep to it, or take a model whose positions have no end",
        )


def table_length(model: nn.Module) -> int | None:
    """Positions in the learned table of a Hugging Face model (GPT-2, OPT); None where it has none."""
    stated = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if stated is None or not hasattr(model, "get_input_embeddings"):
        return None
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m is not _words(model)]
    # OPT's table begins with two rows that no position reads.
    return stated if any(stated <= table.num_embeddings <= stated + 2 for table in tables) else None


def _words(model: nn.Module) -> nn.Module:
    words: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    return words


__all__ = ["TRAINING_AXES", "TrainingConfig", "beyond_table", "run_training"]
