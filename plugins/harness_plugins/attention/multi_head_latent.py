"""Multi-head latent attention: the cache keeps one low-rank vector a token."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Attention, ConfigError, Method, ModelSpec, Position, View, hookimpl


class MultiHeadLatent(Attention):
    """Keys and values are projected up from a shared latent; positions act on a few extra components.

    Paper: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1
    Shapes: cache holds c_BSR (latent) and r_BSP (rotated key, shared by the heads); H = P + unrotated part
    Differs: queries are projected in one step (no query latent, as in DeepSeek-V2-Lite)
    Raises: ConfigError if rope_dim is not below model.head_dim
    """

    name = "multi_head_latent"

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        latent_dim: int = 64
        """Width of the cached latent (d_c)."""
        rope_dim: int = 16
        """Components of each head that carry positions (d_h^R)."""

        def __post_init__(self) -> None:
            if self.latent_dim < 1 or self.rope_dim < 1:
                raise ConfigError("attention.latent_dim and attention.rope_dim must be at least 1")

    config: Config

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        return dataclasses.replace(spec, rotary_dim=config.rope_dim)

    @classmethod
    def small(cls) -> Any:
        return cls.Config(latent_dim=8, rope_dim=4)

    def build(self, spec: ModelSpec) -> None:
        self.content_dim = spec.head_dim - self.config.rope_dim
        if self.content_dim < 1:
            raise ConfigError(
                f"attention.rope_dim={self.config.rope_dim} must be below model.head_dim={spec.head_dim}"
            )
        bias = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        width, latent = spec.num_heads * spec.head_dim, self.config.latent_dim
        self.q_proj = nn.Linear(spec.dim, width, bias=bias)
        self.kv_down_proj = nn.Linear(spec.dim, latent, bias=bias)
        self.kv_norm = nn.RMSNorm(latent, eps=spec.norm_eps)
        self.k_rope_proj = nn.Linear(spec.dim, self.config.rope_dim, bias=bias)
        self.k_proj = nn.Linear(latent, spec.num_heads * self.content_dim, bias=bias)
        self.v_proj = nn.Linear(latent, width, bias=bias)
        self.o_proj = nn.Linear(width, spec.dim, bias=spec.bias if spec.out_bias is None else spec.out_bias)

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        read = x_BTD if memory_BSD is None else memory_BSD
        content, turned = self.project_queries(x_BTD).split((self.content_dim, self.config.rope_dim), dim=-1)
        latent = self.kv_norm(self.kv_down_proj(read)).unsqueeze(1)
        key = self.split(self.k_rope_proj(read), 1)
        if position is not None:
            turned = position.rotate(turned, view.query_position_BT, is_key=False)
            key = position.rotate(key, view.query_position_BT, is_key=True)
        if cache is not None:
            latent, key = cache.update(latent, key, self.layer)
        k = self.split(self.k_proj(latent[:, 0]), self.num_heads)
        v = self.split(self.v_proj(latent[:, 0]), self.num_heads)
        k = torch.cat((k, key.expand(-1, self.num_heads, -1, -1)), dim=-1)
        mixed = self.attend(torch.cat((content, turned), dim=-1), k, v, view, position)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MultiHeadLatent]
