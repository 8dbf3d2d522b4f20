"""Gated linear attention: a state whose components each forget at a rate that the token decides."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, Position, hookimpl, kept_by_chunks
from harness_plugins.attention._recurrent import Recurrent


class GatedLinear(Recurrent):
    """S_t = diag(a_t) S_(t-1) + k_t^T v_t, o_t = q_t S_t / sqrt(H), a_t = sigmoid(x W_1 W_2 + b)^(1/tau);
    RMSNorm(o) gated by Swish(x W_g).

    Paper: Yang et al. 2023, arXiv:2312.06635, section 4.4
    Differs: keys are as wide as values; where positions rotate queries and keys, the two components of a pair
    share the mean of their log gates, so that scores depend on distances only (the paper has no positions)
    State: one H by H matrix a head while decoding
    Raises: ConfigError for a rank or normalizer below 1, a prefix, or an encoder; IncompatibleError for a
    cache of keys
    """

    name = "gated_linear"
    causal_only = True
    reads_keys = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Recurrent.Config):
        gate_rank: int = 16
        """Width of W_1, through which the gates are computed."""
        gate_normalizer: float = 16.0
        """Root tau that brings the gates near 1."""

        def __post_init__(self) -> None:
            if self.gate_rank < 1 or self.gate_normalizer < 1:
                raise ConfigError(
                    f"attention.gate_rank={self.gate_rank} and attention.gate_normalizer="
                    f"{self.gate_normalizer:g} must be at least 1"
                )

    config: Config

    @classmethod
    def kept_values(cls, config: Config, spec: ModelSpec, length: int) -> float:
        width = spec.head_dim
        sums = kept_by_chunks(length, state_dim=width, width=width, decay_dims=2)
        return spec.num_heads * (sums + 12.0 * width)

    def build(self, spec: ModelSpec) -> None:
        super().build(spec)
        width = spec.num_heads * spec.head_dim
        self.g_proj = nn.Linear(spec.dim, width, bias=spec.bias)
        self.gate_down_proj = nn.Linear(spec.dim, self.config.gate_rank, bias=False)
        self.gate_up_proj = nn.Linear(self.config.gate_rank, width, bias=True)
        self.norm = nn.RMSNorm(spec.head_dim, eps=spec.norm_eps)

    def log_decay(self, x_BTD: Tensor, position: Position | None) -> Tensor:
        gate = self.split(self.gate_up_proj(self.gate_down_proj(x_BTD)), self.num_heads)
        wide = torch.promote_types(gate.dtype, torch.float32)
        log_gate = F.logsigmoid(gate.to(wide)) / self.config.gate_normalizer
        if position is None or "rotary" not in position.provides:
            return log_gate
        width = int(getattr(position, "width", log_gate.shape[-1]))
        first, second, rest = log_gate.split((width // 2, width // 2, log_gate.shape[-1] - width), dim=-1)
        shared = (first + second) / 2
        return torch.cat((shared, shared, rest), dim=-1)

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        return x_BNTH if is_key else x_BNTH * self.scale

    def finish(self, mixed_BNTH: Tensor, x_BTD: Tensor) -> Tensor:
        normed = self.norm(mixed_BNTH.to(x_BTD.dtype)).transpose(1, 2).flatten(2)
        return self.o_proj(normed * F.silu(self.g_proj(x_BTD)))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GatedLinear]
