"""Batches of an objective's examples: windows of token files turned into prediction problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from harness.axes.objective import Example, Objective
from harness.data.packed_source import Window, document_ids, positions
from harness.data.template import IGNORED
from harness.training.contract import Batch

PADDING_DOCUMENT = -1
"""Document of padding; no token belongs to it, so none reads padding."""

Rows = Callable[[Sequence[Window], Sequence[np.random.Generator]], Batch]
"""Makes a batch of windows, each of which draws from a stream of its own."""


def rows_of(objective: Objective, *, encoder: bool, prefix: bool, sentinels: np.ndarray) -> Rows:
    """What a packed source calls to make batches of this objective."""

    def rows(windows: Sequence[Window], rngs: Sequence[np.random.Generator]) -> Batch:
        examples = [
            objective.example(window.ids_T1[: window.length], rng, encoder=encoder, sentinels=sentinels)
            for window, rng in zip(windows, rngs, strict=True)
        ]
        return collate(examples, windows, encoder=encoder, prefix=prefix)

    return rows


def collate(examples: Sequence[Example], windows: Sequence[Window], *, encoder: bool, prefix: bool) -> Batch:
    """Examples padded to one length.

    Shapes: B x T; labels are -100 on padding and, where the window's order is kept, across documents
    """
    length = max(len(example.inputs_T) for example in examples)
    batch: dict[str, list[np.ndarray]] = {}
    for example, window in zip(examples, windows, strict=True):
        inputs_T, labels_T = example.inputs_T, example.labels_T.copy()
        documents_T = np.zeros(len(inputs_T), dtype=np.int64)
        if example.keeps_order:
            documents_T = document_ids(inputs_T, window.eos_id, window.visible)
            labels_T[inputs_T == window.eos_id] = IGNORED
        row = {
            "input_ids": _padded(inputs_T, length, window.eos_id),
            "labels_BT": _padded(labels_T, length, IGNORED),
            "document_ids": _padded(documents_T, length, PADDING_DOCUMENT),
            "position_ids": _padded(positions(documents_T), length, 0),
        }
        if prefix:
            row["prefix_length"] = np.array(example.prefix_length)
        if encoder:
            assert example.source_S is not None, "an objective must fill the encoder where there is one"
            row["encoder_input_ids"] = example.source_S
        for name, value in row.items():
            batch.setdefault(name, []).append(value)
    if encoder:
        sources = batch["encoder_input_ids"]
        width = max(map(len, sources))
        batch["encoder_attention_mask"] = [_padded(np.ones(len(ids)), width, 0) for ids in sources]
        batch["encoder_input_ids"] = [_padded(ids, width, windows[0].eos_id) for ids in sources]
    return {name: torch.from_numpy(np.stack(rows).astype(np.int64)) for name, rows in batch.items()}


def _padded(values: np.ndarray, length: int, filler: int) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), filler, dtype=np.int64)])
