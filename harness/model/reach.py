"""How long the sequences may be that a model tells apart."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from harness.axes.position import Position
from harness.method import Problem


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
