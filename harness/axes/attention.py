"""Attention: the token mixer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from harness.axes.position import Position
from harness.errors import ConfigError, IncompatibleError
from harness.method import CellView, Method, Problem
from harness.ops.cache_layer import MemoryCache, beside
from harness.ops.index import Index
from harness.ops.kernels import attend
from harness.ops.norms import rms_norm
from harness.ops.state_cache import StateCache
from harness.ops.view import View
from harness.ops.window_cache import WindowCache
from harness.spec import ModelSpec

__all__ = ["Attention", "CacheKind", "Index", "Kernel", "View"]


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


def no_scores(attention: str, position: str) -> str:
    """What is wrong with a recurrent attention and a position scheme that adds to scores."""
    return (
        f"attention={attention} has no scores that position={position} could add to; use rope, xpos, "
        "learned, sinusoidal or nope"
    )


def layers_of(meta_model: Any) -> Iterator[tuple[Attention, Position]]:
    """(attention, positions) of every layer of a model of ours; nothing of another."""
    backbone = getattr(meta_model, "model", None)
    for stack in (backbone, getattr(backbone, "encoder", None)):
        at = getattr(stack, "position_of_layer", ())
        for block, index in zip(getattr(stack, "layers", ()), at, strict=False):
            yield block.self_attn, stack.position_at(index)  # type: ignore[union-attr]


def _no_kernel(attention: Attention, position: Position) -> str:
    """Why the kernel that is asked for cannot compute a layer; empty where it can."""
    kernel, cap = attention.config.kernel, attention.spec.attention_cap
    if kernel is Kernel.auto:
        return ""
    if attention.recurrent:
        return f"attention={attention.name} has no softmax that a kernel would compute"
    if cap is not None and kernel in (Kernel.flash, Kernel.flex):
        return f"the {kernel.value} kernel cannot bound scores, as model.attention_cap={cap:g} asks"
    learned = any(True for _ in position.parameters())
    if kernel is Kernel.flash and learned and (position.has_bias() or position.has_query_bias()):
        return f"the flash kernel takes no learned score bias, which position={position.name} adds"
    if kernel is Kernel.flex and position.has_query_bias():
        return f"the flex kernel takes no term that depends on the query, as position={position.name} adds"
    return ""


def _pages_a_state(attention: Attention) -> bool:
    return attention.recurrent and attention.config.cache is CacheKind.paged


class Attention(nn.Module, Method):
    """Token mixer with uniform projections; a variant says only what differs.

    A variant overrides `num_kv_heads`, `mask` (and `keys`, to be cheap), or the whole of `attend`; one that
    needs other projections overrides `build`.

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
    override: Callable[[Attention, Tensor, Tensor, Tensor, View], Tensor] | None = None
    """A context method's replacement of `attend`: (attention, q_BNTH, k_BKSH, v_BKSH, view) -> BNTH."""

    def __init__(self, config: Config, spec: ModelSpec, layer: int, *, cross: bool = False) -> None:
        nn.Module.__init__(self)
        Method.__init__(self, config)
        self.spec, self.layer, self.cross = spec, layer, cross
        self.num_heads = spec.num_heads
        self.kv_heads = self.num_kv_heads(config, spec.num_heads)
        if self.kv_heads < 1 or spec.num_heads % self.kv_heads:
            known = [k for k in range(1, spec.num_heads + 1) if spec.num_heads % k == 0]
            raise ConfigError(
                f"attention.num_kv_heads={self.kv_heads} must divide model.num_heads={spec.num_heads}; "
                f"use one of {known}"
            )
        self.scale = spec.head_dim**-0.5 if spec.attention_scale is None else spec.attention_scale
        self.build(spec)

    def new_cache(self) -> Any:
        """The layer of a cache that keeps its past; None for one that keeps all keys and values."""
        if self.recurrent:
            return StateCache()
        return None if self.reach is None else WindowCache(self.reach)

    @classmethod
    def num_kv_heads(cls, config: Any, num_heads: int) -> int:
        """Key/value heads this variant keeps (K)."""
        return num_heads

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Pairs with the position axis that cannot work, and a kernel that cannot train where this runs."""
        on_cpu = cell.device == "cpu" or (cell.device == "auto" and not torch.cuda.is_available())
        built = any(cls.axis in cell.reads(stage) for stage in cell.stages)
        if config.kernel is Kernel.flex and built and on_cpu:
            yield Problem(
                where="attention.kernel",
                message="the flex kernel cannot train on a CPU; use attention.kernel=auto, which computes "
                "windowed variants block by block, or device=cuda",
            )
        yield from cls._unread(cell.spec(), meta_model)
        refused = [_no_kernel(attention, position) for attention, position in layers_of(meta_model)]
        for message in dict.fromkeys(filter(None, refused)):
            yield Problem(where="attention.kernel", message=f"{message}; use attention.kernel=auto")
        for name in dict.fromkeys(each.name for each, _ in layers_of(meta_model) if _pages_a_state(each)):
            yield Problem(
                where="attention.cache",
                message=f"attention={name} keeps a state, and no keys that blocks would hold; use "
                "attention.cache=contiguous",
            )

    @classmethod
    def _unread(cls, spec: ModelSpec | None, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Stated fields of the shape that no layer's attention reads."""
        kinds = {type(attention) for attention, _ in layers_of(meta_model)} or {cls}
        for name in sorted(frozenset.intersection(*(kind.unread for kind in kinds))):
            if getattr(spec, name, None) is not None:
                yield Problem(
                    where=f"model.{name}",
                    message=f"attention={cls.name} has no scores that it would change; set "
                    f"model.{name}=null, or use attention=full",
                )

    @classmethod
    def small(cls) -> Any:
        """Options that make a difference on 16 tokens and heads of 16; the conformance suite uses them."""
        return cls.Config()

    def build(self, spec: ModelSpec) -> None:
        """Create the projections."""
        qkv_bias = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        out_bias = spec.bias if spec.out_bias is None else spec.out_bias
        self.q_proj = nn.Linear(spec.dim, spec.num_heads * spec.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(spec.dim, self.kv_heads * spec.head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(spec.dim, self.kv_heads * spec.head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(spec.num_heads * spec.head_dim, spec.dim, bias=out_bias)
        if spec.qk_norm:
            self.q_norm, self.k_norm = (
                rms_norm(spec.head_dim, eps=spec.norm_eps, offset=spec.norm_offset) for _ in range(2)
            )

    def mask(self, b: Index, h: Index, q: Index, k: Index) -> Index | bool:
        """Whether query position q may read key position k; only restricts what architecture and documents
        allow.
        """
        return True

    def keys(self, q_start: int, q_end: int, num_keys: int) -> slice | Tensor:
        """A superset of the keys that queries q_start..q_end read; lets the base skip the rest."""
        return slice(0, num_keys)

    recurrent: bool = False
    """Whether its past is a state of fixed size, so that decoding keeps a StateCache."""
    causal_only: bool = False
    """Whether it is a recurrence over the past that has no bidirectional form."""
    reads_keys: bool = True
    """Whether it goes on from keys and values that others made, as prefix tuning gives to all layers."""

    @property
    def reach(self) -> int | None:
        """Positions, its own included, that a token reads back at most; decoding frees what lies before."""
        return None

    keeps_scores: bool = False
    """Whether training keeps a number or more for each pair of tokens, as a fused kernel does not: the plan
    then only bounds its memory."""

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec, length: int) -> float:
        """Values that a token of `length` keeps in one layer for its scores, most in single precision, until
        the backward pass; a fused kernel keeps none.
        """
        return 3.0 * spec.num_heads * length if cls.keeps_scores else 0.0

    unread: frozenset[str] = frozenset()
    """Of `attention_cap` and `attention_scale`, fields of the shape, those that it has no scores for: the
    plan refuses them where no layer reads them."""
    absolute: bool = False
    """Whether `mask` depends on more than q - k and h; `keys` then holds only where positions are slots."""

    def attend(
        self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, view: View, position: Position | None
    ) -> Tensor:
        """Mix values by scores; the whole of it, for variants that are not masked softmax attention."""
        parts = None if self.config.kernel is Kernel.flex else view.parts()
        if parts is not None:
            return self.by_document(q_BNTH, k_BKSH, v_BKSH, parts, position)
        restricts = type(self).mask is not Attention.mask and not self.cross
        skips = type(self).keys is not Attention.keys and not self.cross
        skips = skips and (view.aligned if self.absolute else view.ordered)
        biased = position is not None and position.has_bias()
        query_bias = None
        if position is not None and position.has_query_bias():
            query_bias = position.query_bias(self.layer, q_BNTH, view)
        return attend(
            q_BNTH,
            k_BKSH,
            v_BKSH,
            view=view,
            scale=self.scale,
            kernel=self.config.kernel.value,
            mask=self.mask if restricts else None,
            keys=self.keys if skips else None,
            bias=position.bias if position is not None and biased else None,
            query_bias=query_bias,
            cap=self.spec.attention_cap,
            key=(type(self), self.mask_key()) if restricts else None,
        )

    def by_document(
        self,
        q_BNTH: Tensor,
        k_BKSH: Tensor,
        v_BKSH: Tensor,
        parts: list[list[View]],
        position: Position | None,
    ) -> Tensor:
        """`attend` on each part of each row alone, so that nothing is computed across documents."""
        rows = []
        for views, *row in zip(parts, q_BNTH, k_BKSH, v_BKSH, strict=True):
            # Cut once, so that gradients add up part by part.
            sizes = [part.num_queries for part in views]
            pieces = zip(views, *(x_NTH.split(sizes, dim=1) for x_NTH in row), strict=True)
            rows.append(
                torch.cat(
                    [self.attend(q[None], k[None], v[None], part, position) for part, q, k, v in pieces], 2
                )
            )
        return torch.cat(rows)

    def mask_key(self) -> Any:
        """What, besides the class, tells masks apart; layers of one key share a mask."""
        return self.config

    def split(self, x_BTD: Tensor, num_heads: int) -> Tensor:
        """Heads moved before time.

        Shapes: B T (n H) -> BnTH
        """
        return x_BTD.view(*x_BTD.shape[:2], num_heads, -1).transpose(1, 2)

    def project_keys(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens, before rotation.

        Shapes: -> BKSH, BKSH
        """
        k, v = self.split(self.k_proj(x_BSD), self.kv_heads), self.split(self.v_proj(x_BSD), self.kv_heads)
        return (self.k_norm(k).to(v.dtype) if self.spec.qk_norm else k), v

    def project_queries(self, x_BTD: Tensor) -> Tensor:
        """Queries of tokens, before rotation.

        Shapes: -> BNTH
        """
        q = self.split(self.q_proj(x_BTD), self.num_heads)
        return self.q_norm(q).to(q.dtype) if self.spec.qk_norm else q

    def read(self, cache: Any, k: Tensor, v: Tensor, view: View) -> tuple[Tensor, Tensor, View]:
        """Keys and values with those that a cache keeps of the past, and the view of just these.

        State: the cache takes the new ones
        """
        if self.reach is not None and (view.padding_BS is not None or not view.ordered):
            layer = cache.layers[self.layer] if self.layer < len(getattr(cache, "layers", ())) else None
            if isinstance(layer, WindowCache):
                layer.hold(view.columns_within(self.reach))
        k, v = cache.update(k, v, self.layer)
        if self.override is not None:  # it knows which keys its own cache keeps
            return k, v, view
        if k.shape[2] > view.num_keys:  # a static cache, of which the rest is not written yet
            k, v = k[:, :, : view.num_keys], v[:, :, : view.num_keys]
        return k, v, view.latest(k.shape[2])

    def read_memory(self, memory_BSD: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """What `project_keys` makes of an encoder's output, kept by a cache for all later steps."""
        kept = beside(cache, MemoryCache, index=self.layer, num_layers=self.spec.num_layers, make=True)
        if kept is None:
            return self.project_keys(memory_BSD)
        if kept.keys is None or kept.values is None:
            kept.keys, kept.values = self.project_keys(memory_BSD)
        return kept.keys, kept.values

    def watch(self, q: Tensor, k: Tensor, v: Tensor, view: View, position: Position | None) -> None:
        """Give the weights to a view that collects them: what attention makes of the identity as values."""
        if view.weights is None:
            return
        if self.recurrent or self.override is not None:
            raise IncompatibleError(
                f"output_attentions=True: attention={self.name} has no weights to show; leave it out"
            )
        groups, num_keys = k.shape[1], k.shape[2]
        one_hot = torch.eye(num_keys, dtype=q.dtype, device=q.device).expand(len(k), groups, -1, -1)
        found = self.attend(q, k, one_hot, view, position)
        view.weights.append(found)

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        """Read this sequence, or with `memory_BSD` another one (cross-attention, without positions).

        State: `cache.update(k, v, layer)` keeps rotated keys and returns all of them
        """
        q = self.project_queries(x_BTD)
        k, v = self.project_keys(x_BTD) if memory_BSD is None else self.read_memory(memory_BSD, cache)
        if position is not None:
            q = position.rotate(q, view.query_position_BT, is_key=False)
            k = position.rotate(k, view.query_position_BT, is_key=True)
        if cache is not None and memory_BSD is None:
            k, v, view = self.read(cache, k, v, view)
        self.watch(q, k, v, view, position)
        if self.override is not None:
            mixed = self.override(self, q, k, v, view)
        else:
            mixed = self.attend(q, k, v, view, position)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
