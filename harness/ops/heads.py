"""Attention on heads that a method reads as it likes, in blocks, so that no whole square of scores is held.

Shapes: B batch, T queries, S keys, N heads, K key/value heads, H head dim
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.ops.extension import RotarySet
from harness.ops.growing_cache import GrowingCache
from harness.ops.rotary import cos_sin, rotate_pairs
from harness.ops.sink_cache import SinkCache

SCORES = 1 << 23
"""Scores of one block at most; blocks are smaller where there are more keys."""


ROWS = 256
"""Queries of one block at most."""


Rotate = Callable[[Tensor, Tensor, bool], Tensor]
"""(queries or keys BNTH, positions BT, whether they are keys) -> rotated as the model rotates them."""


class Placement(NamedTuple):
    """Positions at which queries see keys, and which of the pairs are scored so."""

    query_position_BT: Tensor
    key_position_BS: Tensor
    reads_BNTS: Tensor | bool = True
    """Broadcastable to B x N x T x S."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What one attention layer is given: some queries, and all keys that any of them may read.

    Shapes: q_BNTH, k_BKSH, v_BKSH (N a multiple of K); query_position_BT, key_position_BS (B may be 1);
    visible_BNTS bool, broadcastable: what the model lets each query read
    """

    q_BNTH: Tensor
    k_BKSH: Tensor
    v_BKSH: Tensor
    query_position_BT: Tensor
    key_position_BS: Tensor
    visible_BNTS: Tensor
    scale: float
    inv_freq: Tensor
    attention_factor: float
    rotate: Rotate | None = None
    """How the model rotates; None is Llama's way, by `inv_freq`."""
    length_B: Tensor | None = None
    """Tokens that each sequence had when it was first read; None = the last key's position says it."""
    cap: float | None = None
    """Bound c of the scores, c tanh(scores / c), before the softmax (Gemma 2); None is none."""
    turned: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Positions that keys were last rotated at, and these keys, which several scores share."""

    def rotated(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool = False) -> Tensor:
        """Queries or keys at positions, which may be fractions."""
        if self.rotate is not None:
            return self.rotate(x_BNTH, position_BT, is_key)
        cos, sin = cos_sin(self.inv_freq, position_BT, dtype=x_BNTH.dtype, factor=self.attention_factor)
        return rotate_pairs(x_BNTH, cos, sin)

    def scores(self, query_position_BT: Tensor, key_position_BS: Tensor) -> Tensor:
        """Scores of all pairs with queries and keys at these positions (BNTS)."""
        q_BNTH = self.rotated(self.q_BNTH, query_position_BT)
        if not self.turned or self.turned[0][0] is not key_position_BS:
            self.turned[:] = [(key_position_BS, self.rotated(self.k_BKSH, key_position_BS, is_key=True))]
        return self._grouped(q_BNTH * self.scale, self.turned[0][1].transpose(-1, -2))

    def _grouped(self, left_BNTX: Tensor, right_BKXY: Tensor) -> Tensor:
        """Products of all heads with the key/value heads that they share (BNTY)."""
        batch, _, length, width = left_BNTX.shape
        left = left_BNTX.reshape(batch, right_BKXY.shape[1], -1, width)
        return (left @ right_BKXY).view(batch, -1, length, right_BKXY.shape[-1])

    def plain_scores(self) -> Tensor:
        """Scores as the unchanged model has them (BNTS)."""
        return self.scores(self.query_position_BT, self.key_position_BS)

    def distance(self) -> Tensor:
        """Query position minus key position (B1TS)."""
        return self.query_position_BT[:, None, :, None] - self.key_position_BS[:, None, None, :]

    def lengths(self) -> Tensor:
        """Tokens of each sequence when it was first read (B)."""
        return self.key_position_BS.amax(dim=1) + 1 if self.length_B is None else self.length_B

    def plain(self, reads_BNTS: Tensor | bool = True) -> Placement:
        """Keys seen as the unchanged model sees them."""
        return Placement(self.query_position_BT, self.key_position_BS, reads_BNTS)

    def at(self, distance: int, reads_BNTS: Tensor | bool = True) -> Placement:
        """Keys that all seem to stand this far before the query."""
        far_BT = torch.full_like(self.query_position_BT, distance)
        return Placement(far_BT, torch.zeros_like(self.key_position_BS), reads_BNTS)

    def read(self, *views: Placement) -> Tensor:
        """Attention to keys each of which a query sees in one of several views at most (BNTH).

        By torch's fused kernel, which holds no square of scores: the queries of all views stand beside each
        other, and a key is zero but where its view's queries stand. A layer of 8,192 tokens with a window of
        4,096 in bfloat16: 0.99 instead of 3.67 s of one core by `mix`.
        """
        seen: list[tuple[Placement, Tensor, slice | Tensor]] = []
        for view in views:
            allowed_BNTS = self.visible_BNTS & view.reads_BNTS
            columns = _run(allowed_BNTS.flatten(end_dim=-2).any(dim=0).nonzero()[:, 0])
            if columns is not None or not seen:
                columns = slice(0, 1) if columns is None else columns
                seen.append((view, allowed_BNTS[..., columns], columns))
        width, num_views = self.q_BNTH.shape[-1], len(seen)
        lead = torch.broadcast_shapes(*(allowed_BNTS.shape[:-1] for _, allowed_BNTS, _ in seen))
        queries, keys, values, allowed = [], [], [], []
        for place, (view, allowed_BNTS, columns) in enumerate(seen):
            k_BKSH = self.rotated(self.k_BKSH[:, :, columns], view.key_position_BS[:, columns], is_key=True)
            queries.append(self.rotated(self.q_BNTH, view.query_position_BT))
            keys.append(F.pad(k_BKSH, (place * width, (num_views - 1 - place) * width)))
            values.append(self.v_BKSH[:, :, columns])
            allowed.append(allowed_BNTS.expand(*lead, -1))
        return self._attention(
            torch.cat(queries, dim=-1),
            torch.cat(keys, dim=2),
            torch.cat(values, dim=2),
            torch.cat(allowed, dim=-1),
        )

    def _attention(self, q_BNTX: Tensor, k_BKSX: Tensor, v_BKSH: Tensor, allowed_BNTS: Tensor) -> Tensor:
        if self.cap is not None:  # which the fused kernel does not know
            scores_BNTS = self._grouped(q_BNTX * self.scale, k_BKSX.transpose(-1, -2))
            return self._average(scores_BNTS, v_BKSH, allowed_BNTS)
        batch, num_heads, length, _ = q_BNTX.shape
        groups, width = k_BKSX.shape[1], v_BKSH.shape[-1]
        # Heads that share keys stand below each other: a larger mask costs less than repeated keys.
        allowed_BNTS = allowed_BNTS.expand(
            -1, num_heads if allowed_BNTS.shape[1] > 1 else num_heads // groups, -1, -1
        )
        allowed_BNTS = allowed_BNTS.reshape(
            len(allowed_BNTS), -1, num_heads // groups * length, k_BKSX.shape[2]
        )
        mixed_BKTX: Tensor = F.scaled_dot_product_attention(
            q_BNTX.reshape(batch, groups, -1, q_BNTX.shape[-1]),
            k_BKSX,
            F.pad(v_BKSH, (0, max(0, q_BNTX.shape[-1] - width))),
            attn_mask=q_BNTX.new_zeros(allowed_BNTS.shape).masked_fill(
                ~allowed_BNTS, torch.finfo(q_BNTX.dtype).min
            ),
            scale=self.scale,
        )
        return mixed_BKTX[..., :width].reshape(batch, num_heads, length, width)

    def mix(self, scores_BNTS: Tensor, reads_BNTS: Tensor | bool = True) -> Tensor:
        """Softmax over what is visible and read, then the values' average (BNTH)."""
        return self._average(scores_BNTS, self.v_BKSH, self.visible_BNTS & reads_BNTS)

    def _average(self, scores_BNTS: Tensor, v_BKSH: Tensor, allowed_BNTS: Tensor) -> Tensor:
        if self.cap is not None:
            scores_BNTS = self.cap * torch.tanh(scores_BNTS / self.cap)
        scores_BNTS = scores_BNTS.masked_fill(~allowed_BNTS, torch.finfo(scores_BNTS.dtype).min)
        return self._grouped(scores_BNTS.float().softmax(-1).to(v_BKSH.dtype), v_BKSH)


def _run(columns_S: Tensor) -> slice | Tensor | None:
    """Columns as a slice where they stand side by side, which is no copy; None where there are none."""
    if not len(columns_S):
        return None
    first, last = int(columns_S[0]), int(columns_S[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns_S) else columns_S


Attend = Callable[[Heads], Tensor]


Reach = tuple[int, int] | None
"""(first tokens, last tokens) that a method reads at most; None where it may read any."""


def plain(heads: Heads) -> Tensor:
    """Rotary attention as it is."""
    return heads.read(heads.plain())


class State:
    """What the layers of one model share: how attention reads, and the cache of the pass that runs."""

    def __init__(self, attend: Attend, reach: Reach) -> None:
        self.attend, self.reach = attend, reach
        self.cache: Any = None
        self.padding_BS: Tensor | None = None


def kept_positions(state: State, layer: int) -> Tensor | None:
    """Positions of the keys that a bounded cache returned to this layer; None for any other cache."""
    layers = getattr(state.cache, "layers", ())
    found = layers[layer] if layer < len(layers) else None
    return found.places_BS if isinstance(found, SinkCache) else None


def causal(query_position_BT: Tensor, key_position_BS: Tensor) -> Tensor:
    """Real keys that stand no later than the query (B1TS)."""
    key = key_position_BS[:, None, None, :]
    return (key <= query_position_BT[:, None, :, None]) & (key >= 0)


def in_blocks(
    state: State,
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSH: Tensor,
    *,
    query_position_BT: Tensor,
    key_position_BS: Tensor,
    visible: Callable[[slice, slice | Tensor], Tensor],
    scale: float,
    rotary: RotarySet,
    rotate: Rotate,
    cap: float | None = None,
    ahead: bool = False,
) -> Tensor:
    """A method's attention, a block of queries and the keys that these may read at a time (BNTH).

    `ahead` says that queries may read keys after their own, of a prefix or a source.
    """
    (batch, num_heads, num_queries, _), num_keys = q_BNTH.shape, k_BKSH.shape[2]
    past = num_keys - num_queries
    width = num_keys if state.reach is None or ahead else min(num_keys, sum(state.reach) + ROWS)
    size = max(8, min(ROWS, SCORES // (batch * num_heads * width)))
    module = rotary.module
    factor = getattr(module, "attention_factor", getattr(module, rotary.attribute("attention_scaling"), 1.0))
    lengths_B = _first_lengths(state, key_position_BS.expand(batch, -1), num_queries)
    outputs = []
    for start in range(0, num_queries, size):
        rows = slice(start, min(start + size, num_queries))
        columns: slice | Tensor = slice(0, num_keys)
        if not ahead:
            columns = _columns(state.reach, key_position_BS, past + rows.start, past + rows.stop)
        heads = Heads(
            q_BNTH=q_BNTH[:, :, rows],
            k_BKSH=k_BKSH[:, :, columns],
            v_BKSH=v_BKSH[:, :, columns],
            query_position_BT=query_position_BT[:, rows],
            key_position_BS=key_position_BS[:, columns],
            visible_BNTS=visible(rows, columns),
            scale=scale,
            inv_freq=rotary.inv_freq,
            attention_factor=float(factor),
            rotate=rotate,
            length_B=lengths_B,
            cap=cap,
        )
        outputs.append(state.attend(heads))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _first_lengths(state: State, key_position_BS: Tensor, num_queries: int) -> Tensor:
    """Tokens of each row when it was first read: its prompt's, once it is decoded token by token."""
    now_B = key_position_BS.amax(dim=1) + 1
    first = next(iter(getattr(state.cache, "layers", ())), None)
    if not isinstance(first, GrowingCache):
        return now_B
    if num_queries == key_position_BS.shape[1] or first.lengths_B is None:
        first.lengths_B = now_B
    return first.lengths_B


def _columns(reach: Reach, key_position_BS: Tensor, start: int, end: int) -> slice | Tensor:
    """Key columns that the queries at columns start..end may read, a superset of what positions allow."""
    if reach is None:
        return slice(0, end)
    sinks, window = reach
    begin = max(0, start - window + 1)
    early = key_position_BS[:, :begin]
    first = ((early >= 0) & (early < sinks)).any(dim=0).nonzero()[:, 0]
    if not len(first):
        return slice(begin, end)
    return torch.cat((first, torch.arange(begin, end, device=first.device)))
