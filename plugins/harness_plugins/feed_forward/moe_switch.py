"""Switch mixture of experts: each token goes through the one expert its router prefers."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, hookimpl
from harness_plugins.feed_forward._experts import Experts


class Expert(nn.Module):
    """One ReLU network D -> ffn_dim -> D."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.up_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        self.down_proj = nn.Linear(spec.ffn_dim, spec.dim, bias=spec.bias)

    def forward(self, x_MD: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x_MD)))  # type: ignore[no-any-return]


class MoeSwitch(Experts):
    """p_i(x) E_i(x) for the expert i with the largest router probability p_i.

    Paper: Fedus et al. 2021, arXiv:2101.03961, sections 2.1 and 2.2
    Differs: without a capacity factor no token is dropped, so that decoding equals the full forward
    Raises: ConfigError for a capacity factor that is not positive
    """

    name = "moe_switch"
    expert = Expert

    @dataclass(frozen=True, kw_only=True)
    class Config(Experts.Config):
        capacity_factor: float | None = None
        """Tokens an expert takes in training, as a multiple of tokens / E; later ones pass. null = all."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.capacity_factor is not None and not self.capacity_factor > 0:
                raise ConfigError(
                    f"feed_forward.capacity_factor={self.capacity_factor} must be positive, or null for all"
                )

    config: Config

    @classmethod
    def kept_values(cls, config: Config, spec: ModelSpec) -> float:
        return 2.0 * spec.ffn_dim + 2.0 * spec.dim  # a copy of the token, and its output, to be weighted

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_MD = x_BTD.flatten(0, -2)
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        probability_ME = self.router(x_MD).to(wide).softmax(dim=-1)
        weight_M, choice_M = probability_ME.max(dim=-1)
        if self.training:
            self._balance = self.balance(probability_ME, choice_M[:, None])
        y_MD = torch.zeros_like(x_MD)
        for index, expert in enumerate(self.experts):
            rows = (choice_M == index).nonzero()[:, 0]
            if self.training and self.config.capacity_factor is not None:
                rows = rows[: math.ceil(self.config.capacity_factor * len(x_MD) / self.config.num_experts)]
            out = expert(x_MD[rows]) * weight_M[rows, None].to(x_MD.dtype)
            y_MD = y_MD.index_add(0, rows, out.to(y_MD.dtype))
        return y_MD.view_as(x_BTD)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MoeSwitch]
