"""Stages whose work does not spread over the layers or the heads of a model, and what would work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness import Method, Problem


def unpiped(method: type[Method], cell: Any) -> Iterator[Problem]:
    """Stages whose loss is no function of what the layers make of one batch, passed along as it is."""
    architecture = cell.choice("architecture")
    for stage in _of(method, cell):
        read = cell.reads(stage)
        peft = cell.choice("peft", stage=stage) if "peft" in read else None
        where = f"parallelism@{stage}.parallelism"
        if "alignment" in read or "reward" in read:
            message = f"a pipeline passes one batch along, and {stage} compares several"
        elif peft is not None and peft.method.virtual:
            message = f"a pipeline has no place for the virtual tokens that {stage} trains"
        elif "instruction" in read and architecture is not None and architecture.build().uses_prefix():
            message = f"a pipeline passes prompts along as they are, and {stage} reads them as prefixes"
        else:
            continue
        yield Problem(where="parallelism", message=f"{message}; use {where}=ddp or another")


def unsplit(method: type[Method], cell: Any) -> Iterator[Problem]:
    """Stages whose adapter stands on the layers that would be split, or whose products look at whole ones."""
    for stage in _of(method, cell):
        precision = cell.choice("precision", stage=stage)
        if precision is not None and precision.method.rounding_bytes:
            yield Problem(
                where="parallelism",
                message=f"precision={precision.method.name} scales each operand by its largest entry, which "
                f"the processes of parallelism={method.name} do not see; use precision=bf16, or "
                f"parallelism@{stage}.parallelism=fsdp",
            )
        peft = cell.choice("peft", stage=stage) if "peft" in cell.reads(stage) else None
        if peft is not None and not peft.method.splittable:
            yield Problem(
                where="parallelism",
                message=f"peft={peft.method.name} stands on layers that parallelism={method.name} splits by "
                f"heads and hidden units; use parallelism@{stage}.parallelism=ddp or fsdp",
            )


def _of(method: type[Method], cell: Any) -> Iterator[str]:
    """The stages whose work this method spreads."""
    for stage in cell.stages:
        own = cell.choice("parallelism", stage=stage) if "parallelism" in cell.reads(stage) else None
        if own is not None and own.method is method:
            yield stage
