"""Top-k attention: each query reads only its k best-matching keys."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import Attention, ConfigError, Method, View, hookimpl


class TopK(Attention):
    """Softmax over the k highest scores of each query; the rest of the keys get no weight.

    Paper: Gupta et al. 2021, arXiv:2106.06899, section 3
    Shapes: scores BNTS, of which k a row stay finite
    Differs: scores are computed in full, so it shows what is lost, not what is saved
    Raises: ConfigError if k < 1
    """

    name = "top_k"
    keeps_scores = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        k: int = 32
        """Keys each query reads, itself possibly among them."""

        def __post_init__(self) -> None:
            if self.k < 1:
                raise ConfigError(f"attention.k={self.k} must be at least 1")
            if self.kernel.name not in ("auto", "math"):
                raise ConfigError(f"attention.kernel={self.kernel.name} cannot pick keys; use auto or math")

    config: Config

    def attend(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, view: View, position: Any) -> Tensor:
        rows = torch.arange(q_BNTH.shape[2], device=q_BNTH.device)
        columns = torch.arange(k_BKSH.shape[2], device=q_BNTH.device)
        wide = torch.promote_types(q_BNTH.dtype, torch.float32)  # a tie in 16 bits would keep too many keys
        scores_BNTS = (q_BNTH.to(wide) @ k_BKSH.to(wide).transpose(-1, -2)) * self.scale
        if (cap := self.spec.attention_cap) is not None:
            scores_BNTS = cap * torch.tanh(scores_BNTS / cap)
        if position is not None and position.has_bias():
            head = torch.arange(self.num_heads, device=q_BNTH.device)[None, :, None, None]
            query = view.query_position_BT[:, None, :, None]
            scores_BNTS = scores_BNTS + position.bias(head, query, view.key_position_BS[:, None, None, :])
        allowed = view.allowed(None, self.num_heads, rows, columns)
        scores_BNTS = scores_BNTS.masked_fill(~allowed, -torch.inf)
        if self.config.k < len(columns):
            worst_kept = scores_BNTS.topk(self.config.k, dim=-1).values[..., -1:]
            scores_BNTS = scores_BNTS.masked_fill(scores_BNTS < worst_kept, -torch.inf)
        return scores_BNTS.softmax(-1).to(v_BKSH.dtype) @ v_BKSH


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TopK]
