"""Sparse factorized attention: recent tokens, plus a thin set that reaches everywhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from harness import Attention, CellView, ConfigError, Kernel, Method, Position, Problem, View, hookimpl
from harness_plugins.attention._factorized import fixed_attend, strided_attend


class Pattern(Enum):
    """Which thin set is read besides the neighbourhood."""

    strided = "strided"
    fixed = "fixed"


class SparseFactorized(Attention):
    """Strided: the last `stride` tokens and every `stride`-th one before. Fixed: the own block and the last
    `summary` tokens of every block. About 2 sqrt(T) keys a query where stride = sqrt(T).

    Paper: Child et al. 2019, arXiv:1904.10509, sections 4.2 and 4.3
    Differs: each head reads the union of the two sets (the paper's merged head)
    Raises: ConfigError if stride < 2, or summary outside [1, stride]
    """

    name = "sparse_factorized"
    keeps_scores = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        pattern: Pattern = Pattern.strided
        """Which of the paper's two patterns."""
        stride: int = 128
        """Tokens l of a neighbourhood, and distance between the far tokens."""
        summary: int = 8
        """Last tokens c of each block that all later ones read (fixed only)."""

        def __post_init__(self) -> None:
            if self.stride < 2:
                raise ConfigError(f"attention.stride={self.stride} must be at least 2")
            if not 1 <= self.summary <= self.stride:
                raise ConfigError(
                    f"attention.summary={self.summary} must lie in [1, attention.stride={self.stride}]"
                )

    config: Config

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        if config.pattern is Pattern.strided and config.summary != cls.Config.summary:
            yield Problem(
                where="attention.summary",
                message=f"attention.summary={config.summary} changes nothing with attention.pattern=strided, "
                "which has no summaries; leave it out, or set attention.pattern=fixed",
            )

    @property
    def absolute(self) -> bool:  # type: ignore[override]
        return self.config.pattern is Pattern.fixed

    @classmethod
    def small(cls) -> Any:
        return cls.Config(stride=4, summary=1)

    def mask(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        stride = self.config.stride
        if self.config.pattern is Pattern.strided:
            return ((q - k).abs() < stride) | ((q - k) % stride == 0)
        return (q // stride == k // stride) | (k % stride >= stride - self.config.summary)

    def keys(self, q_start: int, q_end: int, num_keys: int) -> Tensor:
        stride, every = self.config.stride, torch.arange(num_keys)
        if self.config.pattern is Pattern.fixed:
            near = (every // stride >= q_start // stride) & (every // stride <= (q_end - 1) // stride)
            return every[near | (every % stride >= stride - self.config.summary)]
        near = (every > q_start - stride) & (every < q_end + stride)
        if q_end - q_start >= stride:
            return every
        far = (every - q_start) % stride < q_end - q_start
        return every[near | far]

    def attend(
        self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, view: View, position: Position | None
    ) -> Tensor:
        stride, summary = self.config.stride, self.config.summary
        plain = view.is_causal and view.aligned and q_BNTH.shape[2] == k_BKSH.shape[2] > 2 * stride
        plain = plain and not (position is not None and position.has_query_bias())
        plain = plain and self.spec.attention_cap is None
        if self.config.kernel is Kernel.auto and plain and not self.cross:
            bias = position.bias if position is not None and position.has_bias() else None
            qkv = (q_BNTH, k_BKSH, v_BKSH)
            if self.config.pattern is Pattern.strided:
                return strided_attend(*qkv, stride=stride, scale=self.scale, bias=bias)
            return fixed_attend(*qkv, stride=stride, summary=summary, scale=self.scale, bias=bias)
        return super().attend(q_BNTH, k_BKSH, v_BKSH, view, position)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SparseFactorized]
