"""Linear attention with decay: sum over keys of decay^(q-k) (q . k) v, in three equal forms.

Shapes: q_BNTH, k_BNSH, v_BNSE (E value width), log_decay N (0 = none); state_BNHE
"""

from __future__ import annotations

import torch
from torch import Tensor


def parallel_linear(
    q: Tensor, k: Tensor, v: Tensor, *, log_decay: Tensor, distance: Tensor, allowed: Tensor
) -> Tensor:
    """All pairs at once, under any mask; quadratic in time.

    Shapes: distance, allowed broadcast to BNTS -> BNTE
    """
    weight = torch.exp(log_decay.to(q.dtype)[:, None, None] * distance.to(q.dtype).clamp_min(0))
    scores = (q @ k.transpose(-1, -2)) * weight.masked_fill(~allowed, 0.0)
    return scores @ v


def chunked_linear(
    q: Tensor, k: Tensor, v: Tensor, *, log_decay: Tensor, state: Tensor | None = None, chunk: int = 128
) -> tuple[Tensor, Tensor]:
    """Causal, chunk by chunk: pairs within a chunk, a state across chunks; linear in time.

    Paper: Sun et al. 2023, arXiv:2307.08621, section 2.1 (chunkwise recurrent)
    Shapes: -> BNTE, the state after the last token BNHE
    """
    length = q.shape[2]
    decay = log_decay.to(q.dtype)[:, None]
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    outputs = []
    for start in range(0, length, chunk):
        q_c, k_c, v_c = (x[:, :, start : start + chunk] for x in (q, k, v))
        size = q_c.shape[2]
        step = torch.arange(size, device=q.device)
        distance = step[:, None] - step[None, :]
        inner = parallel_linear(q_c, k_c, v_c, log_decay=log_decay, distance=distance, allowed=distance >= 0)
        carried = torch.exp(decay * (step + 1).to(q.dtype))[..., None]
        outputs.append(inner + (q_c * carried) @ state)
        kept = torch.exp(decay * (size - 1 - step).to(q.dtype))[..., None]
        state = state * torch.exp(decay * size)[..., None] + (k_c * kept).transpose(-1, -2) @ v_c
    return torch.cat(outputs, dim=2), state
