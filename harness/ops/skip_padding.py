"""Attention of one new token a row that leaves out padded columns: rows of similar length are read together.

Shapes: B rows, N query heads, K key/value heads, T new tokens, S columns, H head dim
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD = 0.75
"""Rows that are read together have at least this share of the longest one's tokens."""
WORTH = 0.85
"""Share of all columns that may be left to read where more calls of the kernel are worth it."""
NAME = "harness_skip_padding"
"""Of the attention function registered with Hugging Face."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Rows in a row whose tokens begin at similar columns of a cache of `width` columns."""

    runs: Sequence[tuple[int, int, int]]
    """(first row, row after the last, first column that any of them reads)."""
    rows: int
    width: int

    def fit(self, q_BNTH: Tensor, k_BKSH: Tensor, mask: Tensor | None) -> bool:
        """Whether a call reads the whole cache, under a mask that knows of padding."""
        if mask is None or mask.dim() != 4:
            return False
        sizes = (len(q_BNTH), len(k_BKSH), len(mask), k_BKSH.shape[2], mask.shape[3])
        return sizes == (self.rows, self.rows, self.rows, self.width, self.width)

    def parts(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Queries, keys, values and mask of each run."""
        q_BNTH, k_BKSH, v_BKSH, mask = tensors
        for begin, end, first in self.runs:
            rows, columns = slice(begin, end), slice(first, None)
            yield q_BNTH[rows], k_BKSH[rows, :, columns], v_BKSH[rows, :, columns], mask[rows, ..., columns]


_current: ContextVar[Runs | None] = ContextVar("runs", default=None)


def attention(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, attn_mask: Tensor | None, **options: Any
) -> Tensor:
    """torch's scaled_dot_product_attention; within `skipping`, without columns that pad whole runs.

    What is left out is padding on the left, which a mask excludes: the same terms are added up.
    Shapes: BNTH, BKSH twice, B?TS -> BNTH
    """
    runs = None if torch.compiler.is_compiling() else _current.get()
    if runs is None or attn_mask is None or not runs.fit(q_BNTH, k_BKSH, attn_mask):
        return F.scaled_dot_product_attention(q_BNTH, k_BKSH, v_BKSH, attn_mask=attn_mask, **options)
    return torch.cat(
        [
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)
            for q, k, v, mask in runs.parts(q_BNTH, k_BKSH, v_BKSH, attn_mask)
        ]
    )


def _hugging_face(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa, likewise, in the form its interface wants (BTNH)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    runs = _current.get()
    plain = options.get("position_bias") is None and attention_mask is not None
    if runs is None or not plain or not runs.fit(query, key, attention_mask):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return found
    assert attention_mask is not None
    parts = runs.parts(query, key, value, attention_mask)
    return torch.cat([sdpa_attention_forward(module, *part, **options)[0] for part in parts]), None


def runs_of(first_column_B: Sequence[int], width: int) -> Sequence[tuple[int, int, int]]:
    """Runs of rows whose tokens begin at these columns; none where little padding would be left out."""
    runs: list[tuple[int, int, int]] = []
    begin = 0
    for end in range(1, len(first_column_B) + 1):
        columns = first_column_B[begin : end + 1]
        if end == len(first_column_B) or width - max(columns) < SPREAD * (width - min(columns)):
            runs.append((begin, end, min(first_column_B[begin:end])))
            begin = end
    read = sum((end - begin) * (width - first) for begin, end, first in runs)
    return runs if read < WORTH * width * len(first_column_B) else ()


@contextmanager
def skipping(model: Any, runs: Sequence[tuple[int, int, int]], width: int) -> Iterator[None]:
    """Within it, a model's attention over a cache of `width` columns leaves out what pads whole runs.

    `model` is ours, or one of transformers' with an exchangeable attention function, whose sdpa this is.
    """
    if not runs:
        yield
        return
    config: Any = getattr(model, "config", None)
    exchanges = bool(getattr(model, "_supports_attention_backend", False))
    theirs = exchanges and config._attn_implementation == "sdpa"
    token = _current.set(Runs(runs=runs, rows=runs[-1][1], width=width))
    try:
        if theirs:
            _register()
            config._attn_implementation = NAME
        yield
    finally:
        _current.reset(token)
        if theirs:
            config._attn_implementation = "sdpa"


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

    if NAME not in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionInterface.register(NAME, _hugging_face)
        AttentionMaskInterface.register(NAME, sdpa_mask)
