"""Switch mixture of experts: each token goes through the one expert its router prefers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, FeedForward, LossTerm, Method, ModelSpec, hookimpl


class Expert(nn.Module):
    """One ReLU network D -> ffn_dim -> D."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.up_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        self.down_proj = nn.Linear(spec.ffn_dim, spec.dim, bias=spec.bias)

    def forward(self, x_MD: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x_MD)))  # type: ignore[no-any-return]


class MoeSwitch(FeedForward):
    """p_i(x) E_i(x) for the expert i with the largest router probability p_i.

    Paper: Fedus et al. 2021, arXiv:2101.03961, sections 2.1 and 2.2
    Differs: without a capacity factor no token is dropped, so that decoding equals the full forward
    State: router probabilities of the last forward, for the load-balancing term
    Raises: ConfigError for fewer than two experts
    """

    name = "moe_switch"
    changes = frozenset({"loss"})

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForward.Config):
        num_experts: int = 4
        """Experts (E); parameters grow with them, computation does not."""
        capacity_factor: float | None = None
        """Tokens an expert takes in training, as a multiple of tokens / E; later ones pass. null = all."""
        balance_weight: float = 0.01
        """Weight of the load-balancing loss (alpha of eq. 4)."""

        def __post_init__(self) -> None:
            if self.num_experts < 2:
                raise ConfigError(f"feed_forward.num_experts={self.num_experts} must be at least 2")
            if self.capacity_factor is not None and not self.capacity_factor > 0:
                raise ConfigError(
                    f"feed_forward.capacity_factor={self.capacity_factor} must be positive, or null for all"
                )

    config: Config

    def build(self, spec: ModelSpec) -> None:
        self.router = nn.Linear(spec.dim, self.config.num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(spec) for _ in range(self.config.num_experts))
        self._balance: Tensor | None = None

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_MD = x_BTD.flatten(0, -2)
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        probability_ME = self.router(x_MD).to(wide).softmax(dim=-1)
        weight_M, choice_M = probability_ME.max(dim=-1)
        if self.training:
            self._balance = self.balance(probability_ME, choice_M)
        y_MD = torch.zeros_like(x_MD)
        for index, expert in enumerate(self.experts):
            rows = (choice_M == index).nonzero()[:, 0]
            if self.training and self.config.capacity_factor is not None:
                rows = rows[: math.ceil(self.config.capacity_factor * len(x_MD) / self.config.num_experts)]
            out = expert(x_MD[rows]) * weight_M[rows, None].to(x_MD.dtype)
            y_MD = y_MD.index_add(0, rows, out.to(y_MD.dtype))
        return y_MD.view_as(x_BTD)

    def balance(self, probability_ME: Tensor, choice_M: Tensor) -> Tensor:
        """E sum_i f_i P_i: share of tokens times mean probability; 1 when balanced (eq. 4)."""
        share_E = F.one_hot(choice_M, self.config.num_experts).to(probability_ME.dtype).mean(dim=0)
        return self.config.num_experts * (share_E * probability_ME.mean(dim=0)).sum()

    def loss_terms(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[LossTerm]:
        if self._balance is None:
            return []
        return [LossTerm(name=f"load_balance.{self.layer}", value=self.config.balance_weight * self._balance)]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MoeSwitch]
