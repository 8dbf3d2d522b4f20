"""What the training loop is handed: batches, losses, and the place it works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from harness.method import Choice
from harness.rng import Purpose
from harness.training.meeting import Meeting

Batch = dict[str, Tensor]
"""Tensors that share their first dimension B. `labels_BT` is already shifted: what position t predicts,
-100 where nothing is learned. `num_bytes` and `num_tokens`, of each sequence where the source knows them, are
counted and not handed on."""


@runtime_checkable
class BatchSource(Protocol):
    """Yields training data in an order of its own and can continue from any point of it.

    Its batches may carry `num_bytes` (UTF-8 bytes of each sequence, needed by budgets in bytes).
    """

    @property
    def num_samples(self) -> int | None:
        """Sequences of one epoch; None where there are no epochs, and no budget may count them."""
        ...

    def next(self, size: int) -> Batch:
        """The next `size` sequences."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position, such that `load_state_dict` continues with the same sequences."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position."""
        ...


LEARNED = "learned_M"
"""Places of labelled tokens in a micro-batch, told to losses that read no others."""
COUNTS = ("num_bytes", "num_tokens")
"""What a batch states of all its sequences, for budgets; no process shares it."""


@runtime_checkable
class SharedSource(BatchSource, Protocol):
    """A source that builds a part of its next sequences only, and yet moves past all of them."""

    def next_rows(self, size: int, rows: slice) -> Batch:
        """The next `size` sequences, of which these rows alone; `num_bytes` and `num_tokens` are of all."""
        ...


def next_rows(source: BatchSource, size: int, rows: slice) -> Batch:
    """These rows of a source's next `size` sequences, and `num_tokens` of all of them.

    Shapes: every tensor but those of COUNTS has as many rows as the slice
    """
    if isinstance(source, SharedSource):
        return source.next_rows(size, rows)
    batch = source.next(size)
    counted = {name: batch[name] for name in COUNTS if name in batch}
    counted.setdefault("num_tokens", torch.tensor(num_tokens(batch)))
    return {name: value[rows] for name, value in batch.items() if name not in COUNTS} | counted


def num_tokens(batch: Batch) -> int:
    """Positions of all id tensors (`input_ids`, `encoder_input_ids`, `chosen_input_ids`, ...) but padding."""
    total = 0
    for name, ids_BT in batch.items():
        if name.endswith("input_ids"):
            mask = batch.get(name.removesuffix("input_ids") + "attention_mask")
            total += ids_BT.numel() if mask is None or mask.shape != ids_BT.shape else int(mask.sum())
    return total


class LossSum(NamedTuple):
    """A loss as a sum over items, so that averages over the global batch stay exact.

    Shapes: scalars; `facts` are sums over the same items and are reported divided by `count`
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]
    facts: dict[str, Tensor]


Loss = Callable[[nn.Module, Batch], LossSum]
"""Loss of one micro-batch; the loop divides the sum of totals by the global count."""


class Run(Protocol):
    """The part of a stage's `Work` that the loop uses."""

    @property
    def stage(self) -> str: ...
    @property
    def choices(self) -> Mapping[str, Choice | tuple[Choice, ...]]: ...
    @property
    def device(self) -> str: ...
    @property
    def checkpoints(self) -> Path: ...
    @property
    def meeting(self) -> Meeting | None:
        """Where several nodes meet; None where one node trains."""
        ...

    @property
    def on_step(self) -> Callable[[int, dict[str, float]], None]: ...
    def stream(self, purpose: Purpose) -> int:
        """Seed of this stage's stream for `purpose`."""
        ...
