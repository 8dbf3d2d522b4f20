"""Losses that several stages share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from harness.data.template import IGNORED
from harness.model.conditioning import conditioned
from harness.ops.cross_entropy import cross_entropy_sum
from harness.training.contract import LEARNED, Batch, LossSum


def language_modeling_loss(model: nn.Module, batch: Batch) -> LossSum:
    """Summed cross-entropy of the labelled tokens.

    Units: nats
    """
    labels_BT = batch["labels_BT"]
    inputs = {name: value for name, value in batch.items() if name not in ("labels_BT", LEARNED)}
    with head_on(model, labels_BT, batch.get(LEARNED)):
        logits = model(**inputs, use_cache=False).logits
    labels = labels_of(logits, batch)
    total = cross_entropy_sum(logits.flatten(0, 1), labels.flatten(), ignored=IGNORED)
    return LossSum(total, (labels_BT != IGNORED).sum(), {})


def conversation_loss(model: nn.Module, batch: Batch) -> LossSum:
    """Summed cross-entropy of the answers' tokens, their prompts read as the architecture reads one.

    Units: nats
    """
    plain = {name: value for name, value in batch.items() if name != LEARNED}
    kept = {name: batch[name] for name in ("labels_BT", LEARNED) if name in batch}
    return language_modeling_loss(model, {**conditioned(model, **plain), **kept})


ON_LEARNED = (language_modeling_loss, conversation_loss)
"""Losses that a batch may tell which positions are learned (`learned_M`)."""


def learned_positions(labels_BT: Tensor) -> Tensor | None:
    """Places of labelled tokens among all of a batch, one row after another; None where all are labelled.

    Shapes: BT -> M
    """
    learned = labels_BT.flatten() != IGNORED
    return None if bool(learned.all()) else learned.nonzero()[:, 0]


def labels_of(logits: Tensor, batch: Batch) -> Tensor:
    """The labels of the positions that logits are of: all, or the learned ones alone.

    Shapes: logits BTV or 1MV -> BT or 1M
    """
    labels_BT = batch["labels_BT"]
    if logits.shape[:2] == labels_BT.shape or LEARNED not in batch:
        return labels_BT
    return labels_BT.flatten()[batch[LEARNED]][None]


@contextmanager
def head_on(model: nn.Module, labels_BT: Tensor, learned_M: Tensor | None) -> Iterator[None]:
    """Compute the output head at the learned positions alone, as if they were one sequence.

    A head reads every position alone, so the logits are those of the whole batch, fewer of them. A head that
    reads other shapes (virtual tokens, a part of a sequence) or split tensors is left as it is.

    Shapes: learned_M indexes B x T; logits BTV become 1MV
    """
    head = None if learned_M is None else output_head(model)
    if head is None:
        yield
        return

    def narrowed(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or type(args[0]) is not Tensor or args[0].shape[:2] != labels_BT.shape:
            return None
        return (args[0].flatten(0, 1)[learned_M][None], *args[1:])

    handle = head.register_forward_pre_hook(narrowed)
    try:
        yield
    finally:
        handle.remove()


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer that makes logits, also behind a wrapper for several processes; None where none is named."""
    inner = model.module if isinstance(getattr(model, "module", None), nn.Module) else model
    find = getattr(inner, "get_output_embeddings", None)
    found = find() if find is not None else None
    return found if isinstance(found, nn.Module) else None
