"""FlexAttention: the predicates become a block mask, and blocks that nobody reads are never computed.

Shapes: q_BNTH, k_BKSH, v_BKSH -> BNTH
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from harness.errors import IncompatibleError
from harness.ops.view import Mask, View

Bias = Callable[[Tensor, Tensor, Tensor], Tensor]


def flex(
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSH: Tensor,
    *,
    view: View,
    scale: float,
    mask: Mask | None,
    bias: Bias | None,
    key: Hashable,
) -> Tensor:
    """Softmax attention under a view; compiled on CUDA, plain elsewhere.

    Raises: IncompatibleError on a CPU while training, which FlexAttention does not support
    """
    on_cuda = q_BNTH.device.type == "cuda"
    if not on_cuda and any(x.requires_grad for x in (q_BNTH, k_BKSH, v_BKSH)):
        raise IncompatibleError(
            f"attention.kernel=flex cannot train on device {q_BNTH.device.type}; use attention.kernel=auto, "
            "which computes windowed variants block by block"
        )
    batch, heads, num_queries = q_BNTH.shape[:3]
    q_position = view.query_position_BT.expand(batch, -1).contiguous()
    k_position = view.key_position_BS.expand(batch, -1).contiguous()
    block_mask = view.remember(
        ("flex", key),
        lambda: create_block_mask(  # type: ignore[arg-type, return-value]
            _predicate(view, mask, q_position, k_position, batch),
            batch,
            heads,
            num_queries,
            k_BKSH.shape[2],
            device=q_BNTH.device.type,
        ),
    )

    def score(value: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert bias is not None
        return value + bias(h, q_position[b, q], k_position[b, k]).to(value.dtype)

    run = _compiled() if on_cuda else flex_attention
    result: Tensor = run(
        q_BNTH,
        k_BKSH,
        v_BKSH,
        score_mod=None if bias is None else score,
        block_mask=block_mask,
        scale=scale,
        enable_gqa=k_BKSH.shape[1] != heads,
    )
    return result


def _predicate(
    view: View, mask: Mask | None, q_position: Tensor, k_position: Tensor, batch: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The view and the variant's mask as FlexAttention wants them: of scalars."""
    prefix = q_position.new_zeros(batch) if view.prefix_B is None else view.prefix_B.expand(batch)

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        result = torch.as_tensor(view.visible(q + view.past, k, prefix[b]), device=q.device) & (k >= 0)
        if mask is not None:
            result = result & mask(b, h, q_position[b, q], k_position[b, k])
        if view.document_BS is not None:
            result = result & (view.document_BS[b, q + view.past] == view.document_BS[b, k])
        if view.padding_BS is not None:
            result = result & view.padding_BS[b, k]
            if not view.cross:
                result = result | (q + view.past == k)
        return result

    return allowed


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
