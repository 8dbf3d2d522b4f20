"""Blocks made of the chosen methods, and stacks of them.

Shapes: B batch, T tokens, S keys, D model dim, N heads
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.axes.attention import Attention, no_scores
from harness.axes.feed_forward import FeedForward
from harness.axes.norm import Norm
from harness.axes.norm_position import NormPosition
from harness.axes.position import Position
from harness.errors import ConfigError
from harness.method import Choice
from harness.model.pattern import layer_choices, layer_spec
from harness.ops.view import (
    View,
)
from harness.spec import ModelSpec

Choices = Mapping[str, Choice]
"""The choice on each of the six model axes."""


class Block(nn.Module):
    """Attention (and cross-attention where there is a memory), then feed-forward."""

    def __init__(
        self, spec: ModelSpec, choices: Choices, layer: int, *, cross: bool, residual_scale: float
    ) -> None:
        super().__init__()
        self.spec, self.residual_scale = spec, residual_scale
        self.arrange: NormPosition = choices["norm_position"].build()
        norm: Norm = choices["norm"].build()

        def norms() -> nn.ModuleList:
            return nn.ModuleList(norm.build(spec.dim, spec) for _ in range(self.arrange.num_norms()))

        attention, feed_forward = choices["attention"], choices["feed_forward"]
        self.self_attn: Attention = attention.build(spec, layer)
        self.attn_norms = norms()
        self.cross_attn: Attention | None = None
        if cross:
            assert issubclass(attention.method, Attention)
            self.cross_attn = attention.method(attention.config, spec, layer, cross=True)
            self.cross_norms = norms()
        self.mlp: FeedForward = feed_forward.build(spec, layer)
        self.mlp_norms = norms()
        self.dropout: nn.Module = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        position: Position,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
        memory_view: View | None = None,
    ) -> Tensor:
        """Shapes: x_BTD -> BTD; `memory_view` says how the tokens read the memory"""

        def attend(h_BTD: Tensor) -> Tensor:
            return self.dropout(self.self_attn(h_BTD, view, position=position, cache=cache))  # type: ignore[no-any-return]

        def feed(h_BTD: Tensor) -> Tensor:
            return self.dropout(self.mlp(h_BTD))  # type: ignore[no-any-return]

        scale = self.residual_scale
        if self.spec.parallel_residual:
            read, feed_on = self.attn_norms[0](x_BTD), self.mlp_norms[0](x_BTD)
            return x_BTD * scale + attend(read) + feed(feed_on)
        x_BTD = self.arrange(x_BTD, attend, self.attn_norms, scale)
        if self.cross_attn is not None and memory_BSD is not None:
            cross = self.cross_attn

            def look(h_BTD: Tensor) -> Tensor:
                return self.dropout(cross(h_BTD, memory_view, memory_BSD=memory_BSD, cache=cache))  # type: ignore[no-any-return]

            x_BTD = self.arrange(x_BTD, look, self.cross_norms, scale)
        return self.arrange(x_BTD, feed, self.mlp_norms, scale)


class Stack(nn.Module):
    """Blocks, their shared position scheme, and the last norm."""

    is_decoder = False
    block_type: type[Block] = Block
    """Class of the blocks."""

    def __init__(
        self, spec: ModelSpec, choices: Choices, *, num_layers: int, bidirectional: bool, cross: bool
    ) -> None:
        super().__init__()
        self.build_blocks(spec, choices, num_layers=num_layers, bidirectional=bidirectional, cross=cross)

    def build_blocks(
        self, spec: ModelSpec, choices: Choices, *, num_layers: int, bidirectional: bool, cross: bool
    ) -> None:
        """Create the blocks; a layer whose pattern names another position scheme gets one of its own, and so
        does one whose attention leaves other components to rotation.
        """
        of_layer = [layer_choices(spec, choices, i) for i in range(num_layers)]
        shapes = [layer_spec(spec, choices, chosen) for chosen in of_layer]

        def scheme(choice: Choice, shape: ModelSpec) -> Position:
            assert issubclass(choice.method, Position)
            own = dataclasses.replace(shape, num_layers=num_layers)
            return choice.method(choice.config, own, bidirectional=bidirectional)

        self.position: Position = scheme(choices["position"], spec)
        schemes, others = [_told(choices["position"], spec)], []
        self.position_of_layer = []
        for chosen, shape in zip(of_layer, shapes, strict=True):
            choice = chosen["position"]
            if (told := _told(choice, shape)) not in schemes:
                schemes.append(told)
                others.append(scheme(choice, shape))
                if type(others[-1]).embed is not Position.embed:
                    raise ConfigError(
                        f"model.layer_pattern: position={choice.method.name} adds to the embeddings, which "
                        "no single layer does; choose it for the model, or rope, xpos, alibi or nope for the "
                        "layer"
                    )
            self.position_of_layer.append(schemes.index(told))
        self.other_positions = nn.ModuleList(others)
        scale = spec.residual_scale if self.is_decoder else spec.encoder_residual_scale
        self.layers = nn.ModuleList(
            self.block_type(shape, chosen, i, cross=cross, residual_scale=scale)
            for i, (shape, chosen) in enumerate(zip(shapes, of_layer, strict=True))
        )
        for layer, at in zip(self.layers, self.position_of_layer, strict=True):
            attention: Any = layer.self_attn
            check_pair(attention, self.position_at(at), bidirectional=bidirectional)
        last = choices["norm_position"].build().final_norm()
        self.norm: nn.Module = choices["norm"].build().build(spec.dim, spec) if last else nn.Identity()

    def position_at(self, index: int) -> Position:
        """A position scheme by its place: the shared one, then those of single layers."""
        return self.position if index == 0 else self.other_positions[index - 1]  # type: ignore[return-value]

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        if not (self.training and torch.is_grad_enabled()):
            return False
        return any(getattr(layer, "gradient_checkpointing", False) for layer in self.layers)

    def blocks(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        cache: Any = None,
        memory: tuple[Tensor, View] | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """All blocks and the last norm; `seen` collects what each block read."""
        if self.recomputes:
            view.memo, cache = None, None
        for layer, at in zip(self.layers, self.position_of_layer, strict=True):
            if seen is not None:
                seen.append(x_BTD)
            # In order and apart, as activation checkpointing wants the tensors it tracks.
            x_BTD = layer(x_BTD, view, self.position_at(at), cache, *(memory or ()))
        x_BTD = self.norm(x_BTD)
        if seen is not None:
            seen.append(x_BTD)
        return x_BTD


def _told(choice: Choice, shape: ModelSpec) -> tuple[Choice, int | None]:
    """What tells position schemes apart: one that turns queries and keys is made for their width."""
    turns = choice.method.rotate is not Position.rotate  # type: ignore[attr-defined]
    return choice, shape.rotary_dim if turns else None


def check_pair(attention: Attention, position: Position, *, bidirectional: bool) -> None:
    """Relations between an attention and what it works with.

    Raises: ConfigError saying which option to change
    """
    if attention.recurrent and (position.has_bias() or position.has_query_bias()):
        raise ConfigError(no_scores(attention.name, position.name))
    if attention.causal_only and bidirectional:
        raise ConfigError(
            f"attention={attention.name} is a recurrence over the past and cannot read a prefix or a source "
            "in both directions; use architecture=causal_decoder"
        )
