"""Who may read whom in one forward pass, built once and shared by all layers.

Shapes: B batch, T queries, S keys (S >= T when a cache is given), N heads. *Slots* count tensor columns, the
cache included; *positions* count real tokens of a document, so that padding and packing change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

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

    Shapes: query_position_BT, key_position_BS int64 (B may be 1); document_BS, padding_BS (True = real),
    prefix_B or None
    """

    query_position_BT: Tensor
    key_position_BS: Tensor
    past: int
    """Keys that stand before the first query."""
    visible: Visible
    document_BS: Tensor | None = None
    padding_BS: Tensor | None = None
    prefix_B: Tensor | None = None
    """Slots from the left that see each other in both directions, padding included."""
    cross: bool = False
    """Whether keys are of another sequence than queries."""
    ordered: bool = True
    """Whether slot differences are position differences within a document."""
    memo: dict[Hashable, Tensor] | None = field(default_factory=dict)
    """Masks already made in this forward; None recomputes them (activation checkpointing)."""

    @property
    def num_queries(self) -> int:
        return self.query_position_BT.shape[1]

    @property
    def num_keys(self) -> int:
        return self.key_position_BS.shape[1]

    @property
    def aligned(self) -> bool:
        """Whether positions are slots, for every row."""
        return self.ordered and self.document_BS is None and self.padding_BS is None

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

        Shapes: rows (query indices from 0), columns (key slots) -> bool, broadcasts to BN[rows][columns]
        """
        q = (rows + self.past)[None, None, :, None]
        k = columns[None, None, None, :]
        prefix = q.new_zeros(1) if self.prefix_B is None else self.prefix_B
        result = torch.as_tensor(self.visible(q, k, prefix[:, None, None, None]), device=q.device)
        result = result.expand(torch.broadcast_shapes(result.shape, (1, 1, len(rows), len(columns))))
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

    def remember(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A mask made once a forward."""
        if self.memo is None:
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


def positions(
    *,
    batch: int,
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
        starts = torch.zeros_like(document_BT, dtype=torch.bool)
        starts[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
        return slot - torch.where(starts, slot, 0).cummax(dim=1).values
    if padding_BS is not None:
        return (padding_BS.long().cumsum(dim=1) - 1).clamp_min(0)
    return slot
