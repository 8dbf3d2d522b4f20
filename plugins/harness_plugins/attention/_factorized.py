"""The two factorized patterns without a dense mask: near and far keys under one softmax.

Time is cut into n blocks of l = stride tokens. Shapes: q_BNTH, k_BNTH, v_BNTH; inside, x_BNnlH
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Bias = Callable[[Tensor, Tensor, Tensor], Tensor]
GROUP = 256
"""Queries of one call of the fixed pattern, at least a block."""


def strided_attend(
    q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor, *, stride: int, scale: float, bias: Bias | None
) -> Tensor:
    """Causal attention to the last `stride` keys and to every `stride`-th one before them.

    Block i reads blocks i - 1 and i (near); offset r reads offset r of earlier blocks (far), which is
    attention along the block axis.

    Shapes: -> BNTH; scores take T (2 l + n) numbers a head instead of T squared
    """
    q, k, v = (_cut(x, stride) for x in (q_BNTH, k_BNTH, v_BNTH))
    block, offset = _coordinates(q)
    column = torch.arange(2 * stride, device=q.device) - stride
    near_k = block * stride + column
    distance = offset - column
    near = (distance >= 0) & (distance < stride) & (near_k >= 0)
    near_scores = q @ _with_previous(k).transpose(-1, -2) * scale
    # Distance `stride` is the first far key: the same offset, one block before.
    far_block = torch.arange(q.shape[2], device=q.device)
    far_scores = torch.einsum("bnirh,bnjrh->bnirj", q, k) * scale
    if bias is not None:
        near_scores = near_scores + _bias(bias, q, block * stride + offset, near_k)
        far_scores = far_scores + _bias(bias, q, block * stride + offset, far_block * stride + offset)
    near_weights, far_weights = _softmax(near_scores, near, far_scores, far_block < block)
    mixed = near_weights @ _with_previous(v) + torch.einsum("bnirj,bnjrh->bnirh", far_weights, v)
    return mixed.flatten(2, 3)[:, :, : q_BNTH.shape[2]]


def fixed_attend(
    q_BNTH: Tensor,
    k_BNTH: Tensor,
    v_BNTH: Tensor,
    *,
    stride: int,
    summary: int,
    scale: float,
    bias: Bias | None,
) -> Tensor:
    """Causal attention within the own block and to the last `summary` tokens of earlier blocks.

    A few blocks at a time read their own tokens and the summaries of all earlier ones in one fused call.

    Shapes: -> BNTH; a call takes at most GROUP (GROUP + n summary) numbers a head
    """
    size, device = stride * max(1, GROUP // stride), q_BNTH.device
    at = torch.arange(q_BNTH.shape[2], device=device)
    far_at = at[at % stride >= stride - summary]
    far_k, far_v = (x[:, :, far_at] for x in (k_BNTH, v_BNTH))
    head = torch.arange(q_BNTH.shape[1], device=device)[None, :, None, None]
    # Cut once, so that gradients add up group by group.
    groups = zip(*(x.split(size, dim=2) for x in (q_BNTH, k_BNTH, v_BNTH)), strict=True)
    mixed = []
    for start, (q, k, v) in zip(range(0, len(at), size), groups, strict=True):
        past = start // stride * summary
        rows = at[start : start + size, None]
        columns = torch.cat((far_at[:past], rows[:, 0]))
        own, summaries = rows // stride == columns // stride, columns % stride >= stride - summary
        mask = (columns <= rows) & (own | summaries)
        if bias is not None:
            scores = bias(head, rows[None, None], columns[None, None, None]).to(q.dtype)
            mask = scores.masked_fill(~mask, float("-inf"))
        k, v = torch.cat((far_k[:, :, :past], k), dim=2), torch.cat((far_v[:, :, :past], v), dim=2)
        mixed.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))
    return torch.cat(mixed, dim=2)


def _cut(x_BNTH: Tensor, stride: int) -> Tensor:
    """Shapes: BNTH -> B N n l H, the end padded with zeros that no real token reads"""
    padded = F.pad(x_BNTH, (0, 0, 0, -x_BNTH.shape[2] % stride))
    return padded.view(*padded.shape[:2], -1, stride, padded.shape[-1])


def _coordinates(q: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes: block n11, offset l1"""
    block = torch.arange(q.shape[2], device=q.device)[:, None, None]
    return block, torch.arange(q.shape[3], device=q.device)[:, None]


def _with_previous(x: Tensor) -> Tensor:
    """Shapes: B N n l H -> B N n 2l H, the block before in front"""
    return torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), dim=3)


def _bias(bias: Bias, q: Tensor, q_at: Tensor, k_at: Tensor) -> Tensor:
    """Shapes: q_at n l 1, k_at broadcasts to n l S -> 1 N n l S"""
    rows = q_at.flatten()[None, None, :, None]
    columns = k_at.expand(*q_at.shape[:2], k_at.shape[-1]).flatten(0, 1)[None, None]
    head = torch.arange(q.shape[1], device=q.device)[None, :, None, None]
    found = bias(head, rows, columns).to(q.dtype)
    return found.reshape(*found.shape[:2], *q_at.shape[:2], -1)


def _softmax(near: Tensor, sees_near: Tensor, far: Tensor, sees_far: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over both sets of keys, split again."""
    scores = torch.cat(
        (near.masked_fill(~sees_near, float("-inf")), far.masked_fill(~sees_far, float("-inf"))), dim=-1
    )
    first, second = scores.softmax(dim=-1).split((near.shape[-1], far.shape[-1]), dim=-1)
    return first, second
