"""Multi-head latent attention: the cache keeps one low-rank vector a token."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    Attention,
    ConfigError,
    Method,
    ModelSpec,
    Position,
    View,
    check_counts,
    hookimpl,
    rms_norm,
)


class MultiHeadLatent(Attention):
    """Keys and values are projected up from a shared latent; positions act on a few extra components.

    Paper: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1
    Shapes: cache holds c_BSR (latent) and r_BSP (rotated key, shared by the heads); H = P + unrotated part
    Differs: queries are projected in one step (no query latent, as in DeepSeek-V2-Lite); stabilizer=qk_norm
    normalises content and rotated part apart
    Raises: ConfigError if rope_dim is not below model.head_dim
    """

    name = "multi_head_latent"
    reads_keys = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        latent_dim: int = 64
        """Width of the cached latent (d_c)."""
        rope_dim: int = 16
        """Components of each head that carry positions (d_h^R)."""

        def __post_init__(self) -> None:
            check_counts(self, "attention", "latent_dim", "rope_dim")

    config: Config
    q_rope_norm: nn.RMSNorm
    k_rope_norm: nn.RMSNorm

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        if config.rope_dim >= spec.head_dim:
            raise ConfigError(
                f"attention.rope_dim={config.rope_dim} must be below model.head_dim={spec.head_dim}"
            )
        return dataclasses.replace(spec, rotary_dim=config.rope_dim)

    @classmethod
    def small(cls) -> Any:
        return cls.Config(latent_dim=8, rope_dim=4)

    def build(self, spec: ModelSpec) -> None:
        self.content_dim = spec.head_dim - self.config.rope_dim
        bias = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        width, latent = spec.num_heads * spec.head_dim, self.config.latent_dim
        self.q_proj = nn.Linear(spec.dim, width, bias=bias)
        self.kv_down_proj = nn.Linear(spec.dim, latent, bias=bias)
        self.kv_norm = nn.RMSNorm(latent, eps=spec.norm_eps)
        self.k_rope_proj = nn.Linear(spec.dim, self.config.rope_dim, bias=bias)
        self.k_proj = nn.Linear(latent, spec.num_heads * self.content_dim, bias=bias)
        self.v_proj = nn.Linear(latent, width, bias=bias)
        self.o_proj = nn.Linear(width, spec.dim, bias=spec.bias if spec.out_bias is None else spec.out_bias)
        if spec.qk_norm:
            # The two parts apart: the rotated one is shared by the heads and cached as it is.
            for name, size in (("norm", self.content_dim), ("rope_norm", self.config.rope_dim)):
                for side in ("q", "k"):
                    made = rms_norm(size, eps=spec.norm_eps, offset=spec.norm_offset)
                    self.add_module(f"{side}_{name}", made)

    def project_queries(self, x_BTD: Tensor) -> Tensor:
        q = self.split(self.q_proj(x_BTD), self.num_heads)
        if not self.spec.qk_norm:
            return q
        content, turned = q.split((self.content_dim, self.config.rope_dim), dim=-1)
        return torch.cat((self.q_norm(content), self.q_rope_norm(turned)), dim=-1).to(q.dtype)

    def project_keys(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """What a cache keeps: the latent, and the key that positions will rotate.

        Shapes: -> B1SR, B1SP
        """
        latent = self.kv_norm(self.kv_down_proj(x_BSD)).unsqueeze(1)
        key = self.split(self.k_rope_proj(x_BSD), 1)
        return latent, self.k_rope_norm(key).to(key.dtype) if self.spec.qk_norm else key

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        content, turned = self.project_queries(x_BTD).split((self.content_dim, self.config.rope_dim), dim=-1)
        latent, key = self.project_keys(x_BTD) if memory_BSD is None else self.read_memory(memory_BSD, cache)
        if position is not None:
            turned = position.rotate(turned, view.query_position_BT, is_key=False)
            key = position.rotate(key, view.query_position_BT, is_key=True)
        if cache is not None and memory_BSD is None:
            latent, key, view = self.read(cache, latent, key, view)
        k = self.split(self.k_proj(latent[:, 0]), self.num_heads)
        v = self.split(self.v_proj(latent[:, 0]), self.num_heads)
        if self.spec.qk_norm:
            k = self.k_norm(k).to(v.dtype)
        k = torch.cat((k, key.expand(-1, self.num_heads, -1, -1)), dim=-1)
        q = torch.cat((content, turned), dim=-1)
        self.watch(q, k, v, view, position)
        mixed = self.attend(q, k, v, view, position)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MultiHeadLatent]
