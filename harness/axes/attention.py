"""Attention: the token mixer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import LongTensor, Tensor, nn

from harness.method import Method
from harness.spec import ModelSpec

Index = Tensor
"""Integer tensors of positions or heads that broadcast together."""


class Kernel(Enum):
    """Which implementation computes the scores."""

    auto = "auto"
    math = "math"
    flash = "flash"
    flex = "flex"


class CacheKind(Enum):
    """How keys and values are kept while decoding."""

    contiguous = "contiguous"
    paged = "paged"


class Attention(nn.Module, Method):
    """Token mixer with uniform projections; a variant says only what differs.

    Shapes: x_BTD -> BTD; queries BNTH, keys and values BKSH with S >= T when a cache is given
    """

    axis = "attention"
    default = "full"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        kernel: Kernel = Kernel.auto
        """Which kernel computes the scores; anything but auto is an error where it cannot run."""
        cache: CacheKind = CacheKind.contiguous
        """How keys and values are kept while decoding; changes no result."""

    config: Config

    def __init__(self, config: Config, spec: ModelSpec, layer: int) -> None:
        nn.Module.__init__(self)
        Method.__init__(self, config)
        self.spec, self.layer = spec, layer

    @classmethod
    def num_kv_heads(cls, config: Config, num_heads: int) -> int:
        """Key/value heads this variant keeps (K)."""
        return num_heads

    def mask(self, b: Index, h: Index, q: Index, k: Index) -> Index | bool:
        """Whether query q may read key k; only restricts what architecture and documents allow."""
        return True

    def keys(self, q_start: int, q_end: int, num_keys: int) -> slice | LongTensor:
        """A superset of the keys that queries q_start..q_end read; lets the base skip the rest."""
        return slice(0, num_keys)
