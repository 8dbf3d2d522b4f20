"""Strided attention without a dense mask: two small score blocks under one softmax."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def strided_attend(
    q_BNTH: Tensor,
    k_BNTH: Tensor,
    v_BNTH: Tensor,
    *,
    stride: int,
    scale: float,
    bias: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Causal attention to the last `stride` keys and to every `stride`-th one before them.

    Time is cut into n blocks of l = stride tokens. Block i reads blocks i - 1 and i (near keys); the token at
    offset r reads offset r of earlier blocks (far keys), which is attention along the block axis.

    Shapes: -> BNTH; scores take T (2 l + n) numbers a head instead of T squared
    """
    length, stride = q_BNTH.shape[2], int(stride)
    pad = -length % stride
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, stride)) for x in (q_BNTH, k_BNTH, v_BNTH))
    blocks = q.shape[2]

    def near(x: Tensor) -> Tensor:  # B N n l H -> B N n 2l H, the block before in front
        return torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), dim=3)

    device = q.device
    row = torch.arange(stride, device=device)[:, None]
    column = torch.arange(2 * stride, device=device)[None, :] - stride
    block = torch.arange(blocks, device=device)
    inside = (column <= row) & (row - column < stride)
    exists = (block[:, None, None] > 0) | (column >= 0)
    near_scores = q @ near(k).transpose(-1, -2) * scale
    # Distance `stride` is the first far key: offset r of the block before.
    far_scores = torch.einsum("bnirh,bnjrh->bnirj", q, k) * scale
    if bias is not None:
        head = torch.arange(q.shape[1], device=device)[None, :, None, None]
        at = (block[:, None] * stride + row[:, 0]).flatten()
        near_k = block[:, None, None] * stride + column
        near_k = near_k.expand(-1, stride, -1).flatten(0, 1)[None, None]
        near_bias = bias(head, at[None, None, :, None], near_k)
        near_scores = near_scores + near_bias.unflatten(2, (blocks, stride)).to(q.dtype)
        far_k = (block[None, None, :] * stride + row[None]).expand(blocks, -1, -1).flatten(0, 1)
        far_bias = bias(head, at[None, None, :, None], far_k[None, None])
        far_scores = far_scores + far_bias.unflatten(2, (blocks, stride)).to(q.dtype)
    near_scores = near_scores.masked_fill(~(inside & exists), float("-inf"))
    earlier = (block[None, :] < block[:, None])[:, None, :]
    far_scores = far_scores.masked_fill(~earlier, float("-inf"))
    weights = torch.cat((near_scores, far_scores), dim=-1).softmax(dim=-1)
    near_weights, far_weights = weights.split((2 * stride, blocks), dim=-1)
    mixed = near_weights @ near(v) + torch.einsum("bnirj,bnjrh->bnirh", far_weights, v)
    return mixed.flatten(2, 3)[:, :, :length]
