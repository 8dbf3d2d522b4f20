"""Mixture of experts: each token goes through the few SwiGLU experts its router prefers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, hookimpl
from harness_plugins.feed_forward._experts import Experts


class Expert(nn.Module):
    """One SwiGLU network D -> ffn_dim -> D."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        self.up_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        self.down_proj = nn.Linear(spec.ffn_dim, spec.dim, bias=spec.bias)

    def forward(self, x_MD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_MD)) * self.up_proj(x_MD))  # type: ignore[no-any-return]


class MoeTopK(Experts):
    """sum over the k most probable experts i of p_i E_i(x), their probabilities scaled to sum to 1.

    Paper: Shazeer et al. 2017, arXiv:1701.06538, section 2.1; Jiang et al. 2024, arXiv:2401.04088, section 2
    Raises: ConfigError for more experts a token than there are
    """

    name = "moe_top_k"
    expert = Expert

    @dataclass(frozen=True, kw_only=True)
    class Config(Experts.Config):
        experts_per_token: int = 2
        """Experts that each token goes through (k)."""
        balance_weight: float = 0.001
        """Weight of the load-balancing loss."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.experts_per_token <= self.num_experts:
                raise ConfigError(
                    f"feed_forward.experts_per_token={self.experts_per_token} must lie in [1, "
                    f"feed_forward.num_experts={self.num_experts}]"
                )

    config: Config

    @classmethod
    def kept_values(cls, config: Config, spec: ModelSpec) -> float:
        # Each expert reads a copy of the token, and its output is weighted.
        return config.experts_per_token * (4.0 * spec.ffn_dim + 2.0 * spec.dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_MD = x_BTD.flatten(0, -2)
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        probability_ME = self.router(x_MD).to(wide).softmax(dim=-1)
        weight_MK, choice_MK = probability_ME.topk(self.config.experts_per_token, dim=-1)
        weight_MK = weight_MK / weight_MK.sum(dim=-1, keepdim=True)
        if self.training:
            self._balance = self.balance(probability_ME, choice_MK)
        y_MD = torch.zeros_like(x_MD)
        for index, expert in enumerate(self.experts):
            rows, places = (choice_MK == index).nonzero(as_tuple=True)
            out = expert(x_MD[rows]) * weight_MK[rows, places, None].to(x_MD.dtype)
            y_MD = y_MD.index_add(0, rows, out.to(y_MD.dtype))
        return y_MD.view_as(x_BTD)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MoeTopK]
