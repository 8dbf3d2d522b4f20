"""Attention kernels: one causal call where nothing else restricts, else blocks with the mask inside.

Shapes: q_BNTH, k_BKSH, v_BKSH (N a multiple of K) -> BNTH
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import IncompatibleError
from harness.ops.skip_padding import attention
from harness.ops.view import Keys, Mask, View

Bias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(head, query position, key position) -> term added to the score."""
QueryBias = Callable[[Tensor, Tensor], Tensor]
"""(query rows, key slots) -> term added to q k before it is scaled, BN[rows][slots]."""

BLOCK = 256
"""Queries of one block where a variant skips keys."""
DENSE_BLOCK = 1024
"""Queries of one block where it does not, so that masks stay small beside the scores."""


def attend(
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSH: Tensor,
    *,
    view: View,
    scale: float,
    kernel: str = "auto",
    mask: Mask | None = None,
    keys: Keys | None = None,
    bias: Bias | None = None,
    query_bias: QueryBias | None = None,
    cap: float | None = None,
    key: Hashable = None,
) -> Tensor:
    """Softmax attention under a view; `key` names the variant, so that its masks are made once a forward.

    Scores are bounded by `cap` (tanh) before anything is added to them.

    Raises: IncompatibleError where an explicitly chosen kernel cannot run
    """
    assert bias is None or query_bias is None
    if cap is not None and kernel in ("flex", "flash"):
        raise IncompatibleError(
            f"attention.kernel={kernel} cannot bound scores, as model.attention_cap={cap:g} asks; use "
            "attention.kernel=auto"
        )
    if kernel == "flex":
        if query_bias is not None:
            raise IncompatibleError(
                "attention.kernel=flex takes no term that depends on the query; use attention.kernel=auto"
            )
        from harness.ops.flex import flex

        return flex(q_BNTH, k_BKSH, v_BKSH, view=view, scale=scale, mask=mask, bias=bias, key=key)
    num_queries, num_keys = q_BNTH.shape[2], k_BKSH.shape[2]
    call = _Call(scale=scale, kernel=kernel, cap=cap, groups=q_BNTH.shape[1] // k_BKSH.shape[1])
    if mask is None and bias is None and query_bias is None and view.is_plain:
        if view.is_full or (view.is_causal and num_queries == 1):
            return call(q_BNTH, k_BKSH, v_BKSH, None)
        if view.is_causal and num_queries == num_keys:
            return call(q_BNTH, k_BKSH, v_BKSH, None, is_causal=True)
    size: int | None = BLOCK if keys is not None else DENSE_BLOCK
    if torch.compiler.is_exporting():  # one block: a count of them would bind the program to some lengths
        keys, size = None, None
    cut = size if size is not None and keys is not None and num_keys > 2 * size else None
    source = _Source(k_BKSH, v_BKSH, cut)
    outputs = []
    for start, end in _blocks(num_queries, size):
        rows = torch.arange(start, end, device=q_BNTH.device)
        columns = source.aligned(_columns(keys, view, start, end, num_keys))
        if isinstance(columns, Tensor):
            index = columns
        else:
            index = torch.arange(columns.start, columns.stop, device=q_BNTH.device)

        def make(rows: Tensor = rows, index: Tensor = index) -> Tensor:
            return _mask_or_bias(view, mask, bias, q_BNTH, rows, index)

        # Of one view, where a block begins and how long blocks are says where it ends. Layers of one key may
        # have positions of their own, whose terms are in what is remembered.
        score_mask = view.remember(("mask", key, bias, q_BNTH.dtype, start, size), make)
        if query_bias is not None:
            score_mask = (query_bias(rows, index) * scale).masked_fill(~score_mask, float("-inf"))
        outputs.append(call(q_BNTH[:, :, start:end], *source.read(columns), score_mask))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


class _Source:
    """Keys and values as blocks read them; cut into chunks once, so that gradients add up chunk by chunk."""

    def __init__(self, k_BKSH: Tensor, v_BKSH: Tensor, size: int | None) -> None:
        self.k, self.v, self.size = k_BKSH, v_BKSH, size
        if size is not None:
            self.k_chunks, self.v_chunks = k_BKSH.split(size, dim=2), v_BKSH.split(size, dim=2)

    def aligned(self, columns: slice | Tensor) -> slice | Tensor:
        """The columns, widened to whole chunks."""
        if isinstance(columns, Tensor) or self.size is None:
            return columns
        stop = -(-columns.stop // self.size) * self.size
        return slice(columns.start // self.size * self.size, min(stop, self.k.shape[2]))

    def read(self, columns: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: -> BK[columns]H twice"""
        if isinstance(columns, Tensor):
            return self.k.index_select(2, columns), self.v.index_select(2, columns)
        if self.size is None:
            return self.k[:, :, columns], self.v[:, :, columns]
        chunks = slice(columns.start // self.size, -(-columns.stop // self.size))
        return torch.cat(self.k_chunks[chunks], dim=2), torch.cat(self.v_chunks[chunks], dim=2)


def _columns(keys: Keys | None, view: View, start: int, end: int, num_keys: int) -> slice | Tensor:
    """Key slots that a block of queries reads at most; what lies in its future is cut off."""
    limit = view.past + end if view.is_causal else num_keys
    if keys is None:
        return slice(0, limit)
    found = keys(view.past + start, view.past + end, num_keys)
    if isinstance(found, slice):
        return slice(max(0, found.start), min(found.stop, limit))
    found = found.to(view.key_position_BS.device)
    return found[found < limit]


def _blocks(num_queries: int, size: int | None) -> Iterator[tuple[int, int]]:
    """Where blocks of queries begin and end; one block is not counted, so that its length may be traced."""
    if size is None or num_queries <= size:
        yield 0, num_queries
        return
    for start in range(0, num_queries, size):
        yield start, min(start + size, num_queries)


def _mask_or_bias(
    view: View, mask: Mask | None, bias: Bias | None, q_BNTH: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    allowed = view.allowed(mask, q_BNTH.shape[1], rows, columns)
    if bias is None:
        return allowed
    head = torch.arange(q_BNTH.shape[1], device=q_BNTH.device)[None, :, None, None]
    q_position = view.query_position_BT[:, rows][:, None, :, None]
    k_position = view.key_position_BS[:, columns][:, None, None, :]
    scores = bias(head, q_position, k_position).to(q_BNTH.dtype)
    return scores.masked_fill(~allowed, float("-inf"))


class _Call:
    """One scaled_dot_product_attention with a chosen backend, or its formula where scores are bounded."""

    def __init__(self, *, scale: float, kernel: str, cap: float | None, groups: int) -> None:
        self.scale, self.kernel, self.cap, self.groups = scale, kernel, cap, groups

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, is_causal: bool = False
    ) -> Tensor:
        if self.cap is not None:
            return self._bounded(q, k, v, mask, is_causal=is_causal)
        backend: AbstractContextManager[None] = nullcontext()
        if self.kernel != "auto":
            chosen = SDPBackend.MATH if self.kernel == "math" else SDPBackend.FLASH_ATTENTION
            backend = sdpa_kernel(chosen)
        try:
            with backend:
                # A comparison of traced sizes is a symbol, which the kernel does not take.
                shared = {"enable_gqa": True} if self.groups > 1 else {}
                return attention(q, k, v, mask, is_causal=is_causal, scale=self.scale, **shared)
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            bias = mask is not None and mask.requires_grad
            raise IncompatibleError(
                f"attention.kernel={self.kernel} cannot run here: dtype {q.dtype}, device {q.device.type}, "
                f"head sizes {q.shape[-1]} and {v.shape[-1]}"
                f"{', a learned score bias' if bias else ''}; use attention.kernel=auto"
            ) from error

    def _bounded(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, is_causal: bool) -> Tensor:
        """softmax(cap tanh(q k scale / cap) + mask) v; the softmax in single precision at least."""
        assert self.cap is not None
        k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))
        scores = self.cap * torch.tanh(q @ k.transpose(-1, -2) * self.scale / self.cap)
        if is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, float("-inf"))
        elif mask is not None:
            scores = scores + mask
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.to(wide).softmax(dim=-1).to(v.dtype) @ v
