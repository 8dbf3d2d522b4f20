"""Who may read whom in one forward pass, built once and shared by all layers.

Shapes: B batch, T queries, S keys (S >= T when a cache is given), N heads. *Slots* count tensor columns, the
cache included; *positions* count real tokens of a document, so that padding and packing change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from harness.errors import ConfigError

JOINED = 128
"""Tokens up to which neighbouring documents are computed together, under a mask."""
Visible = Callable[[Tensor, Tensor, Tensor], "Tensor | bool"]
"""(query slot, key slot, prefix length) -> whether the key can be seen at all."""
Mask = Callable[[Tensor, Tensor, Tensor, Tensor], "Tensor | bool"]
"""(batch, head, query position, key position) -> whether the variant lets the query read the key."""
Keys = Callable[[int, int, int], "slice | Tensor"]
"""(first query slot, past the last one, number of keys) -> superset of the key slots that are read."""


def causal(q: Tensor, k: Tensor, prefix: Tensor) -> Tensor:
    """Every token sees itself and what came before."""
    return k <= q


def everything(q: Tensor, k: Tensor, prefix: Tensor) -> bool:
    """Every token sees every other."""
    return True


@dataclass(kw_only=True, eq=False)
class View:
    """The facts that masks are made of.

    Shapes: query_position_BT, key_position_BS int64 (B may be 1); document_BS (adjacent within a document, B
    may be 1), padding_BS (True = real), prefix_B or None
    """

    query_position_BT: Tensor
    key_position_BS: Tensor
    past: int
    """Keys that stand before the first query."""
    visible: Visible
    document_BS: Tensor | None = None
    stated_document_BS: Tensor | None = None
    """The same where it was given, on the host or a device; null is as above."""
    padding_BS: Tensor | None = None
    prefix_B: Tensor | None = None
    """Slots from the left that see each other in both directions, padding included."""
    cross: bool = False
    """Whether keys are of another sequence than queries."""
    ordered: bool = True
    """Whether slot differences are position differences within a document."""
    shifted: bool = False
    """Whether positions do not begin with 0 at the first slot."""
    whole: bool = False
    """Whether this is a part of a view, not to be cut again."""
    memo: dict[Hashable, Any] | None = field(default_factory=dict)
    """Masks already made in this forward; None recomputes them (activation checkpointing)."""
    weights: list[Tensor] | None = None
    """Collects the weights of each attention that reads through this view, where they are asked for."""

    @property
    def num_queries(self) -> int:
        return self.query_position_BT.shape[1]

    @property
    def num_keys(self) -> int:
        return self.key_position_BS.shape[1]

    @property
    def aligned(self) -> bool:
        """Whether positions are slots, for every row."""
        return self.ordered and not self.shifted and self.document_BS is None and self.padding_BS is None

    @property
    def is_causal(self) -> bool:
        """Whether visibility is exactly the lower triangle."""
        return self.visible is causal

    @property
    def is_full(self) -> bool:
        """Whether everything is visible."""
        return self.visible is everything

    @property
    def is_plain(self) -> bool:
        """Whether only visibility restricts."""
        return self.document_BS is None and self.padding_BS is None

    def allowed(self, mask: Mask | None, num_heads: int, rows: Tensor, columns: Tensor) -> Tensor:
        """same_document AND mask AND visible AND not padding, for query rows and key columns.

        Shapes: rows (query indices from 0), columns (key slots) -> bool, broadcasts to `BN[rows][columns]`
        """
        q = (rows + self.past)[None, None, :, None]
        k = columns[None, None, None, :]
        prefix = q.new_zeros(1) if self.prefix_B is None else self.prefix_B
        result = torch.as_tensor(self.visible(q, k, prefix[:, None, None, None]), device=q.device)
        result = result.expand(torch.broadcast_shapes(result.shape, (1, 1, rows.shape[0], columns.shape[0])))
        if mask is not None:
            batch = torch.arange(self.key_position_BS.shape[0], device=q.device)[:, None, None, None]
            head = torch.arange(num_heads, device=q.device)[None, :, None, None]
            q_position = self.query_position_BT[:, rows][:, None, :, None]
            k_position = self.key_position_BS[:, columns][:, None, None, :]
            result = result & mask(batch, head, q_position, k_position)
        if self.document_BS is not None:
            document_q = self.document_BS[:, rows + self.past][:, None, :, None]
            result = result & (document_q == self.document_BS[:, columns][:, None, None, :])
        if self.padding_BS is not None:
            result = result & self.padding_BS[:, columns][:, None, None, :]
            if not self.cross:  # Padding reads itself, so that no row of the softmax is empty.
                result = result | (q == k)
        return result

    def latest(self, num_keys: int) -> View:
        """The view where only the last keys are left, as a cache that frees what is not read keeps them."""
        dropped = self.num_keys - num_keys
        if dropped == 0:
            return self
        assert dropped <= self.past, "new tokens are never dropped"
        assert self.document_BS is None, "documents come without a cache"
        return self.remember(  # type: ignore[no-any-return]
            ("latest", num_keys),
            lambda: replace(
                self,
                key_position_BS=self.key_position_BS[:, dropped:],
                past=self.past - dropped,
                padding_BS=None if self.padding_BS is None else self.padding_BS[:, dropped:],
                prefix_B=None if self.prefix_B is None else self.prefix_B - dropped,
                shifted=True,
                memo={},
            ),
        )

    def columns_within(self, reach: int) -> int:
        """Key slots, from the last one back, that hold all keys which later tokens find within `reach`."""

        def count() -> int:
            near = self.key_position_BS > self.query_position_BT[:, -1:] - reach
            if self.padding_BS is not None:
                near = near & self.padding_BS
            first = near.long().argmax(dim=1).min()
            return int(self.num_keys - first)

        found: int = self.remember(("within", reach), count)
        return found

    def parts(self) -> list[list[View]] | None:
        """Views of each row's documents, one after the other; None where documents do not cut a row.

        Documents shorter than JOINED tokens share a view with their neighbours. Where documents end is read
        once a forward, where they were stated; within a compiled graph it cannot be.
        """
        if self.document_BS is None or self.whole or not (self.is_causal or self.is_full):
            return None
        stated = self.document_BS if self.stated_document_BS is None else self.stated_document_BS
        if torch.compiler.is_compiling() or stated.device.type == "meta":
            return None
        found: list[list[View]] = self.remember("parts", lambda: self._parts(stated))
        return found

    def _parts(self, documents: Tensor) -> list[list[View]]:
        changes = (documents[:, 1:] != documents[:, :-1]).tolist()
        found = []
        for row, starts in enumerate(changes):
            cuts = [0, *(at + 1 for at, starts_here in enumerate(starts) if starts_here), len(starts) + 1]
            found.append([self._part(row, *part) for part in _joined(cuts)])
        return found

    def _part(self, row: int, start: int, end: int, alone: bool) -> View:
        def cut(x_BT: Tensor) -> Tensor:
            return x_BT[row % len(x_BT), start:end][None]

        assert self.document_BS is not None
        return View(
            query_position_BT=cut(self.query_position_BT),
            key_position_BS=cut(self.key_position_BS),
            past=0,
            visible=self.visible,
            document_BS=None if alone else cut(self.document_BS),
            ordered=self.ordered,
            memo=None if self.memo is None else {},
            whole=True,
        )

    def remember(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A mask made once a forward."""
        if self.memo is None:
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


def known(value: Tensor, *, otherwise: Any = True) -> Any:
    """The value of a tensor of one element; `otherwise` within a compiled graph, and on the meta device."""
    if torch.compiler.is_compiling() or value.device.type == "meta":
        return otherwise
    return value.item()


def real_tokens(attention_mask: Tensor | None) -> Tensor | None:
    """Which tokens are no padding; None where all are real.

    Raises: ConfigError for a mask of pairs of tokens
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise ConfigError(
            f"attention_mask has {attention_mask.dim()} dimensions; give one number for each token (batch x "
            "tokens), and document_ids or prefix_length for other patterns"
        )
    padding = attention_mask.bool()
    return None if known(padding.all(), otherwise=False) else padding


def _joined(cuts: list[int]) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is one document) of parts of JOINED tokens or one document each."""
    start, held = cuts[0], 0
    for begin, end in pairwise(cuts):
        if held and end - start > JOINED:
            yield start, begin, held == 1
            start, held = begin, 0
        held += 1
    yield start, cuts[-1], held == 1


def has_holes(padding_BS: Tensor) -> Tensor:
    """Whether padding stands between real tokens of some row, so that slots and positions drift apart."""
    rises = padding_BS[:, 1:] & ~padding_BS[:, :-1]
    return (rises.sum(dim=1) + padding_BS[:, 0] > 1).any()


def document_starts(document_BT: Tensor) -> Tensor:
    """Where a document begins, the first token apart.

    Shapes: BT -> BT bool
    """
    starts = torch.zeros_like(document_BT, dtype=torch.bool)
    starts[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
    return starts


def positions(
    *,
    past: int,
    num_queries: int,
    device: torch.device,
    padding_BS: Tensor | None = None,
    document_BT: Tensor | None = None,
) -> Tensor:
    """Positions of all keys: counted from the first real token, and from each document's start.

    Shapes: -> BS or 1S, int64
    """
    slot = torch.arange(past + num_queries, device=device)[None]
    if document_BT is not None:
        assert past == 0
        return slot - torch.where(document_starts(document_BT), slot, 0).cummax(dim=1).values
    if padding_BS is not None:
        return (padding_BS.long().cumsum(dim=1) - 1).clamp_min(0)
    return slot
