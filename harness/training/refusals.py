"""Options of a training that do not go with its methods, as the plan says it and as the loop does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.method import Method
from harness.training.settings import Settings


def refused(
    settings: Settings, *, processes: int, parallelism: type[Method], stabilizers: Iterable[type[Method]]
) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it and what would work)."""
    if settings.compile and processes > 1:
        yield (
            "compile",
            f"true trains in one process, and parallelism={parallelism.name} has {processes}; use false",
        )
    returning = next(filter(_rolls_back, stabilizers), None)
    if returning is not None and settings.checkpoint_every is None:
        yield "checkpoint_every", f"stabilizer={returning.name} returns to checkpoints; set it to some steps"


def _rolls_back(stabilizer: type[Method]) -> bool:
    from harness.training.methods import acts

    return acts(stabilizer, "verdict")
