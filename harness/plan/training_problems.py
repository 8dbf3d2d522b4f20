"""What of a stage that trains, its own options and its methods, does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.axes.batch_schedule import BatchSchedule
from harness.compose import Cell
from harness.compose.schema import stage_axes, stage_key
from harness.method import Choice, Problem
from harness.training.refusals import refused
from harness.training.settings import Settings


def untrainable(cell: Cell, stage: str) -> Iterator[Problem]:
    """What the loop would refuse, or the processes that share its work."""
    parallelism = cell.choice("parallelism", stage=stage) if "parallelism" in stage_axes(stage) else None
    config: Any = cell.stage_config(stage)
    if parallelism is None or not isinstance(config, Settings):
        return
    yield from _unshared(cell, stage, parallelism)
    for option, message in refused(
        config,
        processes=parallelism.config.world_size,
        parallelism=parallelism.method,
        stabilizers=[choice.method for choice in cell.choices("stabilizer", stage=stage)],
    ):
        yield Problem(where=f"{stage_key(stage)}.{option}", message=message)


def _unshared(cell: Cell, stage: str, parallelism: Choice) -> Iterator[Problem]:
    """Batches, at any time of a training, that the processes which share them cannot share evenly."""
    schedule = cell.choice("batch_schedule", stage=stage)
    processes, full = parallelism.build().spread().data, cell.stage_config(stage).batch_size
    if processes == 1 or schedule is None:
        return
    method: BatchSchedule = schedule.build()  # type: ignore[assignment]
    uneven = method.uneven(full, processes)
    if uneven is not None:
        yield Problem(
            where=f"{stage_key(stage)}.batch_size",
            message=f"{processes} processes cannot share a batch of {uneven} (parallelism="
            f"{parallelism.method.name}, batch_schedule={schedule.method.name}); use "
            f"{method.evened(full, processes)}",
        )
