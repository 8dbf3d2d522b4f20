"""Cross-entropy that keeps no tensor of logits in single precision, forward or backward.

Shapes: M rows, V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**19, "cuda": 2**26}
"""Bytes of the rows computed at once: what a core's cache holds, or what fills a GPU with one kernel."""


def cross_entropy_sum(logits_MV: Tensor, labels_M: Tensor, *, ignored: int) -> Tensor:
    """Summed -log softmax(logits)[label] over the rows whose label is not `ignored`.

    The whole vocabulary of a few rows is computed at once, in single precision at least, so that beside the
    logits there is only, in the backward pass, their gradient in their own format.

    Shapes: -> scalar, float32 or float64
    Units: nats
    Error: that of torch's cross_entropy on logits in single precision; the gradient is rounded to the
    format of the logits
    """
    found: Tensor = _CrossEntropySum.apply(logits_MV, labels_M, ignored)  # type: ignore[no-untyped-call]
    return found


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, labels_M: Tensor, ignored: int) -> Tensor:
        wide = torch.promote_types(logits_MV.dtype, torch.float32)
        learned_M = labels_M != ignored
        picked_M1 = labels_M.where(learned_M, 0)[:, None]
        log_prob_M1 = torch.empty(picked_M1.shape, dtype=wide, device=logits_MV.device)
        for rows in _chunks(logits_MV):
            log_prob_M1[rows] = logits_MV[rows].log_softmax(1, dtype=wide).gather(1, picked_M1[rows])
        ctx.save_for_backward(logits_MV, learned_M, picked_M1)
        ctx.wide = wide
        return -log_prob_M1[:, 0].where(learned_M, 0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits_MV, learned_M, picked_M1 = ctx.saved_tensors
        weight_M1 = (gradients[0] * learned_M)[:, None]
        gradient_MV = torch.empty_like(logits_MV)
        for rows in _chunks(logits_MV):
            # d loss / d logit = softmax - one-hot
            part_RV = logits_MV[rows].softmax(1, dtype=ctx.wide)
            part_RV.scatter_add_(1, picked_M1[rows], part_RV.new_full((len(part_RV), 1), -1.0))
            torch.mul(part_RV, weight_M1[rows], out=gradient_MV[rows])
            del part_RV  # else it stands beside the next
        return gradient_MV, None, None


def chunk_rows(vocab_size: int, device: str) -> int:
    """Rows that are computed at once on a device of that type."""
    return max(8, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * max(vocab_size, 1)))


def _chunks(logits_MV: Tensor) -> list[slice]:
    num_rows, size = logits_MV.shape
    step = chunk_rows(size, logits_MV.device.type)
    return [slice(start, start + step) for start in range(0, num_rows, step)]
