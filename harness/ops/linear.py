"""Linear attention with decay: sum over keys of decay(q, k) (q . k) v, in equal forms.

A log decay L_t <= 0 multiplies, before token t, all that was summed so far: decay(q, k) is the exponential of
L_(k+1) + ... + L_q. Sums are formed and given in single precision at least, whatever the inputs are.

Shapes: q_BNTH, k_BNTH, v_BNTE (E value width), log_decay BNT, broadcastable, or None; state_BNHE;
document_BT, equal and adjacent within a document, across which nothing is read
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 128
"""Tokens of a chunk where a head decays as a whole."""
GATED_CHUNK = 16
"""Tokens of a chunk where each component of a key decays on its own: all their pairs are written out."""


def wide(*tensors: Tensor) -> list[Tensor]:
    """The tensors in single precision at least, so that a sum over thousands of tokens keeps its digits."""
    return [x if x.dtype in (torch.float32, torch.float64) else x.float() for x in tensors]


def parallel_linear(
    q: Tensor, k: Tensor, v: Tensor, *, log_decay: Tensor | None, allowed: Tensor | None = None
) -> Tensor:
    """All pairs at once, under any mask (None reads everything); quadratic in time, decaying both ways.

    Shapes: q BNTH, k BNSH with S >= T, queries standing last; log_decay BNS; allowed to BNTS -> BNTE
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = wide(q, k, v)
        scores = q @ k.transpose(-1, -2)
        if log_decay is not None:
            total = log_decay.to(q.dtype).cumsum(-1)
            total_q = total[..., total.shape[-1] - q.shape[2] :]
            scores = scores * torch.exp(-(total_q[..., :, None] - total[..., None, :]).abs())
        if allowed is not None:
            scores = scores.masked_fill(~allowed, 0.0)
        return scores @ v


def chunked_linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None,
    state: Tensor | None = None,
    document_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal, chunk by chunk: pairs within a chunk, a state across chunks; linear in time.

    `log_decay` may also be of each component of the key, BNTH. Every exponential is of a sum that is not
    positive, so that no decay overflows, however strong.

    Paper: Sun et al. 2023, arXiv:2307.08621, section 2.1; Dao and Gu 2024, arXiv:2405.21060, section 6;
    Yang et al. 2023, arXiv:2312.06635, section 4 (components)
    Shapes: -> BNTE, the state after the last token BNHE
    """
    chunk = GATED_CHUNK if log_decay is not None and log_decay.dim() == 4 else CHUNK
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = wide(q, k, v)
        if state is None:
            state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
        if torch.compiler.is_exporting():
            return _any_length(q, k, v, log_decay, state, document_BT, chunk=chunk)
        outputs, cut = [], _cuts(document_BT)
        # Cut once, so that gradients add up chunk by chunk.
        for index, (q_c, k_c, v_c) in enumerate(
            zip(*(x.split(chunk, dim=2) for x in (q, k, v)), strict=True)
        ):
            at = slice(index * chunk, (index + 1) * chunk)
            steps, edges = log_decay, None
            if log_decay is not None and log_decay.shape[2] > 1:
                steps = log_decay[:, :, at]
            if document_BT is not None and cut(at):
                before = document_BT[:, at.start - 1] if at.start else None
                edges = _Edges(document_BT[:, at], before)
            part = _Chunk(q_c, k_c, v_c, steps, edges)
            outputs.append(part.own + part.q @ state)
            state = part.carry(state) + part.added
        return torch.cat(outputs, dim=2), state


def _any_length(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    document_BT: Tensor | None,
    *,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """All chunks at once, so that an exported program holds for any number of tokens.

    The last chunks are filled up with tokens that add nothing; the state before each is a decayed sum over
    all chunks before it, quadratic in their number C.
    """
    rows, heads, length = q.shape[:3]
    count = length // chunk + 2  # never one, which would be traced as a case of its own
    # Read by index, since a view that splits a traced size would bind it.
    number = torch.arange(count, device=q.device)
    place_CL = number[:, None] * chunk + torch.arange(chunk, device=q.device)
    filler_CL, place_CL = place_CL >= length, place_CL.clamp_max(length - 1)
    row_BC = torch.arange(rows, device=q.device)[:, None] * count + number

    def cut(x_BNTH: Tensor) -> Tensor:
        whole = x_BNTH[:, :, place_CL].masked_fill(filler_CL[..., None], 0.0)
        return whole.transpose(1, 2).flatten(0, 1)

    steps, edges = None, None
    if log_decay is not None:
        components = log_decay if log_decay.dim() == 4 else log_decay[..., None]
        steps = cut(components.to(q.dtype).expand(rows, heads, length, -1))
        steps = steps if log_decay.dim() == 4 else steps[..., 0]
    if document_BT is not None:
        document_BCT = document_BT[:, place_CL].expand(rows, -1, -1)
        before_BC = torch.cat((document_BCT[:, 0, :1], document_BCT[:, :-1, -1]), dim=1)
        edges = _Edges(document_BCT.flatten(0, 1), before_BC.flatten())
    part = _Chunk(cut(q), cut(k), cut(v), steps, edges)
    sources = torch.cat((state[:, None], part.added[row_BC]), dim=1)
    step = torch.arange(count + 1, device=q.device)
    read = (step[:, None] >= step)[None, :, :, None, None]
    weights = read.to(q.dtype)
    if part.lead is not None:
        total = F.pad(part.lead[..., 0][row_BC].cumsum(1), (0, 0, 0, 0, 1, 0))
        weights = weights * (total[:, :, None] - total[:, None]).clamp_max(0).exp()
    if edges is not None:
        ends = F.pad((~edges.whole_B111.flatten()[row_BC]).long().cumsum(1), (1, 0))
        weights = weights * (ends[:, :, None] == ends[:, None])[..., None, None]
    states = torch.einsum("bcsnh,bsnhe->bcnhe", weights.expand(rows, -1, -1, -1, -1), sources)
    out = part.own + part.q @ states[:, :-1].flatten(0, 1)
    out = out[row_BC].transpose(1, 2).flatten(2, 3)
    return out.index_select(2, torch.arange(length, device=q.device)), states[:, -1]


class _Chunk:
    """What the tokens of one chunk make of each other, read of a state before them, and add to it."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, edges: _Edges | None
    ) -> None:
        self.lead, self.edges = None, edges
        if log_decay is None:
            scores = q @ k.transpose(-1, -2)
        else:
            scores, lead = _decayed(q, k, log_decay)
            q, k = q * lead.exp(), k * (lead[:, :, -1:] - lead).exp()
            self.lead = lead[:, :, -1, :, None]
        if edges is None:
            scores = scores.tril()
        else:
            scores = scores.masked_fill(edges.unread_B1TT, 0.0)
            q, k = q * edges.goes_on_B1T1, k * edges.reaches_B1T1
        self.q = q
        self.own = scores @ v
        self.added = k.transpose(-1, -2) @ v

    def carry(self, state: Tensor) -> Tensor:
        """What is left of a state after the chunk."""
        carried = state if self.lead is None else state * self.lead.exp()
        return carried if self.edges is None else carried * self.edges.whole_B111


def kept_by_chunks(length: int, *, state_dim: int, width: int, decay_dims: int = 0) -> float:
    """Values of a head that a token of `length` keeps until the backward pass of `chunked_linear`.

    The pairs of its chunk, their decays (`decay_dims` 1 of a head, 2 of each component) and the states
    between chunks
    """
    if decay_dims == 2:
        chunk = min(GATED_CHUNK, length)
        return 3.0 * chunk * state_dim + state_dim * width / chunk
    chunk = min(CHUNK, length)
    return (4.0 if decay_dims else 1.0) * chunk + state_dim * width / chunk


def _cuts(document_BT: Tensor | None) -> Callable[[slice], bool]:
    """Whether a document of any row begins within a chunk; taken for granted where asking would wait."""
    if document_BT is None or document_BT.device.type != "cpu" or torch.compiler.is_compiling():
        return lambda at: True
    starts_T = [False, *(document_BT[:, 1:] != document_BT[:, :-1]).any(dim=0).tolist()]
    return lambda at: any(starts_T[at])


def _decayed(q: Tensor, k: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of a chunk's pairs, and the log decay from its beginning through each token.

    Shapes: -> BNTT (what lies above the diagonal means nothing), BNTH or BNT1
    """
    steps = log_decay.to(q.dtype)
    if steps.shape[2] == 1 and q.shape[2] > 1:
        steps = steps.expand(*steps.shape[:2], q.shape[2], *steps.shape[3:])
    total = steps.cumsum(2)
    # Above the diagonal the difference is positive and may overflow.
    pairs = (total[:, :, :, None] - total[:, :, None]).clamp_max(0).exp()
    if total.dim() == 3:
        return q @ k.transpose(-1, -2) * pairs, total[..., None]
    return torch.einsum("bnih,bnjh,bnijh->bnij", q, k, pairs), total


class _Edges:
    """Where documents end within one chunk, and before it."""

    def __init__(self, document_BT: Tensor, before_B: Tensor | None) -> None:
        self.last_B = document_BT[:, -1]
        first_B1 = (document_BT[:, :1] if before_B is None else before_B[:, None]).expand(-1, 1)
        apart_BTT = document_BT[:, :, None] != document_BT[:, None]
        future_TT = torch.ones(apart_BTT.shape[1:], dtype=torch.bool, device=document_BT.device).triu(1)
        self.unread_B1TT = (apart_BTT | future_TT)[:, None]
        goes_on_BT = document_BT == first_B1
        self.goes_on_B1T1 = goes_on_BT[:, None, :, None]
        """Tokens of the document that the state is of."""
        self.reaches_B1T1 = (document_BT == self.last_B[:, None])[:, None, :, None]
        """Tokens of the document that the chunk ends in."""
        self.whole_B111 = goes_on_BT[:, -1, None, None, None]
