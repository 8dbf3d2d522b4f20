"""Who may read whom in one call of a model: positions, padding, documents, prefixes, and a cache's past.

Shapes: B batch, T tokens, S keys
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.axes.architecture import Architecture
from harness.axes.position import Position
from harness.errors import ConfigError
from harness.ops.cache_layer import PositionCache, beside
from harness.ops.view import (
    View,
    causal,
    document_starts,
    everything,
    has_holes,
    known,
    positions,
    real_tokens,
)


def view_of(
    tokens: Tensor,
    *,
    architecture: Architecture,
    num_layers: int,
    cache: Any = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    document_ids: Tensor | None = None,
    prefix_length: Tensor | None = None,
    visible: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
) -> View:
    """Who may read whom in this call; everything that restricts nothing is left out."""
    past = int(cache.get_seq_length()) if cache is not None else 0
    num_queries = tokens.shape[1]
    padding = real_tokens(attention_mask)
    if padding is not None and padding.shape[1] != past + num_queries:
        raise ConfigError(
            f"attention_mask has {padding.shape[1]} columns; the cache holds {past} tokens and "
            f"{num_queries} are new, so it needs {past + num_queries}"
        )
    document, inferred = None, False
    if document_ids is None and attention_mask is None and cache is None and position_ids is not None:
        document_ids = documents_of(position_ids, rows=tokens.shape[0])
        inferred = document_ids is not None
    if document_ids is not None:  # given on the host, they are read there, and nobody waits for a device
        if past:
            raise ConfigError("document_ids packs whole sequences; it cannot be combined with a cache")
        starts = document_starts(document_ids)
        if padding is not None:  # padding is a document of its own
            starts, padding = starts | document_starts(padding).to(starts.device), None
        document = starts.long().cumsum(1) if known(starts.any()) else None
    key_position = positions(
        past=past,
        num_queries=num_queries,
        device=tokens.device if document is None else document.device,
        padding_BS=padding,
        document_BT=document,
    ).to(tokens.device)
    ordered, shifted = padding is None or not known(has_holes(padding), otherwise=True), False
    if document is None or inferred:  # stated documents decide their own positions
        key_position, even, shifted = given_positions(
            key_position, padding, position_ids, cache, rows=tokens.shape[0], num_layers=num_layers
        )
        ordered = ordered and even
    prefix = None
    if prefix_length is not None and architecture.uses_prefix() and visible is None:
        prefix = torch.as_tensor(prefix_length, device=tokens.device).reshape(-1)
        if tokens.device.type == "cpu" and known(prefix.max() > past + num_queries, otherwise=False):
            raise ConfigError(
                f"prefix_length={int(prefix.max())} is longer than the sequence of "
                f"{past + num_queries} tokens"
            )
        if padding is not None:
            prefix = prefix + padding.long().argmax(dim=1)
    if visible is None:
        plain = type(architecture).visible is Architecture.visible
        plain = plain or (architecture.uses_prefix() and prefix is None)
        visible = causal if plain else architecture.visible
    return View(
        query_position_BT=key_position[:, past:],
        key_position_BS=key_position,
        past=past,
        visible=visible,
        document_BS=None if document is None else document.to(tokens.device),
        stated_document_BS=document,
        padding_BS=padding,
        prefix_B=prefix,
        ordered=ordered,
        shifted=shifted,
    )


def documents_of(position_ids: Tensor, *, rows: int) -> Tensor | None:
    """Documents that share a row, by positions that start anew, as transformers infers them of a call that
    states neither a mask nor a cache; None where each row is one document.

    Differs: a gap between growing positions starts no document
    Shapes: BT (or T) -> BT
    """
    position_BT = position_ids if position_ids.dim() == 2 else position_ids[None]
    again_BT = torch.zeros_like(position_BT, dtype=torch.bool)
    again_BT[:, 1:] = position_BT[:, 1:] <= position_BT[:, :-1]
    return again_BT.long().cumsum(1).expand(rows, -1) if known(again_BT.any()) else None


def given_positions(
    derived_BS: Tensor,
    padding_BS: Tensor | None,
    position_ids: Tensor | None,
    cache: Any,
    *,
    rows: int,
    num_layers: int,
) -> tuple[Tensor, bool, bool]:
    """Positions of all keys, whether their differences are those of slots, and whether they are shifted.

    Positions of one's own are kept beside a cache's keys, so that later calls know those of the past; a
    call that gives none counts on from the last one.

    Shapes: derived_BS, padding_BS, position_ids BT, 1T or T -> BS, B = rows
    """
    kept = None
    if cache is not None:
        kept = beside(cache, PositionCache, index=0, num_layers=num_layers, make=False)
    if position_ids is None and kept is None:
        return derived_BS, True, False
    num_queries = derived_BS.shape[1]
    if position_ids is not None:
        position_ids = position_ids if position_ids.dim() == 2 else position_ids[None]
        num_queries = position_ids.shape[1]
    past = derived_BS.shape[1] - num_queries
    if kept is not None and kept.positions is not None:
        past = kept.seen
        before_BS, last_B1 = kept.positions, kept.positions[:, -1:] - derived_BS[:, past - 1 : past]
        given_BT = derived_BS[:, past:] + last_B1 if position_ids is None else position_ids
    else:
        assert position_ids is not None
        given_BT, before_BS = position_ids, derived_BS[:, :past]
    shift_BT = given_BT - derived_BS[:, past:]
    same = shift_BT == 0 if padding_BS is None else (shift_BT == 0) | ~padding_BS[:, past:]
    if kept is None and known(same.all(), otherwise=False):
        return derived_BS, True, False
    whole_BS = torch.cat((before_BS.expand(rows, -1), given_BT.expand(rows, -1)), dim=1)
    if cache is not None:
        kept = kept or beside(cache, PositionCache, index=0, num_layers=num_layers, make=True)
    if kept is not None:
        kept.store(whole_BS)
    shift_BS = whole_BS - derived_BS
    even = shift_BS == shift_BS[:, -1:]
    even = even if padding_BS is None else even | ~padding_BS
    return whole_BS, known(even.all(), otherwise=False), True


def check_length(position: Position, view: View) -> None:
    """Refuse positions that the scheme does not have; padding and packed documents need none."""
    longest = position.max_length()
    if longest is None or (view.num_keys <= longest and not view.shifted):
        return
    last = known(view.query_position_BT.max() + 1, otherwise=0)
    if last > longest:
        raise ConfigError(
            f"position={position.name} holds {longest} positions, but {last} tokens were given; "
            "raise model.max_length or use a scheme without a table (rope, alibi, sinusoidal)"
        )


def memory_view(tokens: Tensor, memory_BSD: Tensor, attention_mask: Tensor | None) -> View:
    """How decoder tokens read the encoder: everything but its padding."""
    rows = torch.arange(tokens.shape[1], device=tokens.device)[None]
    columns = torch.arange(memory_BSD.shape[1], device=tokens.device)[None]
    return View(
        query_position_BT=rows,
        key_position_BS=columns,
        past=0,
        visible=everything,
        padding_BS=real_tokens(attention_mask),
        cross=True,
    )


def tell_padding(cache: Any, view: View) -> None:
    """Let a fresh paged cache know each row's left padding, which it does not store."""
    if cache is None or view.past or view.padding_BS is None:
        return
    tables = [layer.table for layer in getattr(cache, "layers", ()) if hasattr(layer, "table")]
    starts = view.padding_BS.long().argmax(dim=1).tolist() if tables else []
    for table in tables:
        table.starts = list(starts)
