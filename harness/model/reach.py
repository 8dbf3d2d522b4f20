"""How long the sequences may be that a model tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from harness.axes.position import Position
from harness.errors import ConfigError
from harness.method import Problem
from harness.ops.extension import stated_length


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
    """Positions in a table of a Hugging Face model, learned (GPT-2, OPT) or made beforehand (the rotations of
    GPT-J); None where it has none.
    """
    stated = stated_length(model)
    if stated is None or not hasattr(model, "get_input_embeddings"):
        return None
    learned = [m for m in model.modules() if isinstance(m, nn.Embedding) and m is not _words(model)]
    # OPT's table begins with two rows that no position reads.
    tables = any(stated <= table.num_embeddings <= stated + 2 for table in learned)
    made = any(buffer.dim() > 1 and len(buffer) == stated for buffer in model.buffers())
    return stated if tables or made else None


def reads(cell: Any, meta_model: nn.Module | None) -> int | None:
    """Tokens of the longest sequence that a cell's model says it reads, its context extended; None where that
    is not known before it runs.
    """
    spec = cell.spec()
    length = spec.max_length if spec is not None else stated_length(meta_model)
    for stage in cell.stages:
        choice = cell.choice("context", stage=stage) if "context" in cell.reads(stage) else None
        if choice is not None and length is not None:
            length = choice.method.extended(choice.config, length)
    return length


def no_room(
    cell: Any, meta_model: nn.Module | None, *, answer: int | None, window: int | None = None, where: str
) -> Iterator[Problem]:
    """A problem where answers leave nothing to a prompt of the window stated, or else of the model's."""
    try:
        window = window or reads(cell, meta_model)
    except ConfigError:  # of the context method, which says so itself
        return
    if answer is not None and window is not None and answer >= window:
        yield Problem(
            where=where,
            message=f"answers of {answer} tokens leave no room for a prompt in a window of {window} tokens; "
            f"let them have {window // 2} or fewer, or take a model with a longer window",
        )


def _words(model: nn.Module) -> nn.Module:
    words: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    return words
