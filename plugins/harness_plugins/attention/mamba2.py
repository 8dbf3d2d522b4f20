"""Mamba-2: a state space model whose heads forget at a rate that the token decides."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import (
    ConfigError,
    Method,
    ModelSpec,
    Position,
    StateCache,
    View,
    hookimpl,
    kept_by_chunks,
)
from harness_plugins.attention._convolution import short_convolution
from harness_plugins.attention._recurrent import Recurrent, Sums

MAX_STATE_DIM = 2**16


class Mamba2(Recurrent):
    """h_t = exp(d_t A) h_(t-1) + d_t B_t^T x_t, y_t = C_t h_t + D x_t, d_t = softplus(x W_d + b); C, B and x
    (queries, keys and values) pass a short convolution and Swish; RMSNorm(y Swish(z)) is projected back.

    Paper: Dao and Gu 2024, arXiv:2405.21060, section 7
    Shapes: q_proj gives C, k_proj gives B, `state_dim` for each group of heads; v_proj gives x
    Differs: initial steps d_t lie evenly between 0.001 and 0.1 on a log scale instead of at random; rotary
    positions, which the paper does not have, turn C and B
    State: one state_dim by H matrix a head and the last inputs of the convolution while decoding
    Raises: ConfigError for groups that do not divide the heads, a prefix, or an encoder; IncompatibleError
    for a cache of keys
    """

    name = "mamba2"
    unread = frozenset({"attention_cap", "attention_scale"})
    causal_only = True
    reads_keys = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Recurrent.Config):
        state_dim: int = 64
        """Components of the state for each component of a head."""
        num_groups: int = 1
        """Groups of heads that share B and C."""
        conv_width: int = 4
        """Tokens that the convolution reads, its own included."""

        def __post_init__(self) -> None:
            if min(self.state_dim, self.num_groups, self.conv_width - 1) < 1:
                raise ConfigError(
                    f"attention.state_dim={self.state_dim} and attention.num_groups={self.num_groups} must "
                    f"be at least 1, and attention.conv_width={self.conv_width} at least 2"
                )
            if self.state_dim > MAX_STATE_DIM:
                raise ConfigError(
                    f"attention.state_dim={self.state_dim} must be at most {MAX_STATE_DIM}, the widest head"
                )

    config: Config

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        return dataclasses.replace(spec, rotary_dim=config.state_dim)

    @classmethod
    def kept_values(cls, config: Config, spec: ModelSpec, length: int) -> float:
        width, state = spec.head_dim, config.state_dim
        sums = kept_by_chunks(length, state_dim=state, width=width, decay_dims=1)
        return spec.num_heads * (sums + 6.0 * width + 5.0 * state)

    @classmethod
    def small(cls) -> Any:
        return cls.Config(state_dim=8, num_groups=2)

    def build(self, spec: ModelSpec) -> None:
        groups, inner = self.config.num_groups, spec.num_heads * spec.head_dim
        if spec.num_heads % groups:
            raise ConfigError(
                f"attention.num_groups={groups} must divide model.num_heads={spec.num_heads}; make it 1"
            )
        bias = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        width = groups * self.config.state_dim
        self.q_proj = nn.Linear(spec.dim, width, bias=bias)
        self.k_proj = nn.Linear(spec.dim, width, bias=bias)
        self.v_proj = nn.Linear(spec.dim, inner, bias=bias)
        self.z_proj = nn.Linear(spec.dim, inner, bias=bias)
        self.step_proj = nn.Linear(spec.dim, spec.num_heads, bias=False)
        channels = inner + 2 * width
        self.conv = nn.Conv1d(channels, channels, self.config.conv_width, groups=channels)
        share = torch.arange(spec.num_heads, dtype=torch.float32) / max(1, spec.num_heads - 1)
        step = torch.exp(math.log(0.001) + share * math.log(100.0))
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        self.log_rate = nn.Parameter(torch.log(torch.arange(1, spec.num_heads + 1, dtype=torch.float32)))
        self.skip = nn.Parameter(torch.ones(spec.num_heads))
        self.norm_weight = nn.Parameter(torch.ones(inner))
        self.o_proj = nn.Linear(inner, spec.dim, bias=spec.bias if spec.out_bias is None else spec.out_bias)
        if spec.qk_norm:
            self.q_norm, self.k_norm = (
                nn.RMSNorm(self.config.state_dim, eps=spec.norm_eps) for _ in range(2)
            )

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        self.watch(x_BTD, x_BTD, x_BTD, view, position)
        kept = None if cache is None else self.state_in(cache)
        q, k, v = self._convolved(x_BTD, view, kept)
        if position is not None:
            q = position.rotate(q, view.query_position_BT, is_key=False)
            k = position.rotate(k, view.query_position_BT, is_key=True)
        repeats = self.num_heads // self.config.num_groups
        q, k = q.repeat_interleave(repeats, dim=1), k.repeat_interleave(repeats, dim=1)
        wide = torch.promote_types(x_BTD.dtype, torch.float32)
        step_BNT = F.softplus(self.step_proj(x_BTD).to(wide) + self.step_bias.to(wide)).transpose(1, 2)
        decay = -step_BNT * self.log_rate.to(wide).exp()[:, None]
        sums = Sums(view, decay, kept, num_heads=self.num_heads)
        mixed = sums(q, k, v.to(wide) * step_BNT[..., None])
        if kept is not None:
            kept.seen += x_BTD.shape[1]
        return self.finish(mixed + self.skip.to(wide)[:, None, None] * v, x_BTD)

    def _convolved(self, x_BTD: Tensor, view: View, kept: StateCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """C, B and x after the convolution.

        Shapes: -> BGTS, BGTS, BNTH with G groups and S state components
        """
        parts = [self.v_proj(x_BTD), self.k_proj(x_BTD), self.q_proj(x_BTD)]
        padding = view.padding_BS
        together, recent = short_convolution(
            torch.cat(parts, dim=-1),
            self.conv.weight[:, 0],
            self.conv.bias,
            recent=None if kept is None else kept.recent,
            padding_BT=None if padding is None else padding[:, padding.shape[1] - x_BTD.shape[1] :],
            document_BT=view.document_BS,
        )
        if kept is not None:
            kept.recent = recent
        v, k, q = F.silu(together).split([part.shape[-1] for part in parts], dim=-1)
        groups = self.config.num_groups
        q, k, v = self.split(q, groups), self.split(k, groups), self.split(v, self.num_heads)
        if self.spec.qk_norm:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        return q, k, v

    def finish(self, mixed_BNTH: Tensor, x_BTD: Tensor) -> Tensor:
        gated = mixed_BNTH.transpose(1, 2).flatten(2)
        gated = gated * F.silu(self.z_proj(x_BTD).to(gated.dtype))
        parts = gated.unflatten(-1, (self.config.num_groups, -1))
        normed = F.rms_norm(parts, parts.shape[-1:], eps=self.spec.norm_eps).flatten(-2)
        return self.o_proj((self.norm_weight * normed.to(x_BTD.dtype)).to(x_BTD.dtype))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Mamba2]
