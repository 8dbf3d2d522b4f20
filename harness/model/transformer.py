"""The composable transformer: blocks made of the chosen methods. Plain torch, no Hugging Face.

Shapes: B batch, T tokens, S keys, D model dim, V vocabulary, N heads
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.axes.architecture import Architecture
from harness.axes.attention import Attention
from harness.axes.feed_forward import FeedForward
from harness.axes.norm import Norm
from harness.axes.norm_position import NormPosition
from harness.axes.position import Position
from harness.errors import ConfigError
from harness.method import Choice
from harness.ops.view import View, causal, everything, positions
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
        self.dropout = nn.Dropout(spec.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        position: Position,
        cache: Any = None,
        memory: tuple[Tensor, View] | None = None,
    ) -> Tensor:
        def attend(h_BTD: Tensor) -> Tensor:
            return self.dropout(self.self_attn(h_BTD, view, position=position, cache=cache))  # type: ignore[no-any-return]

        def feed(h_BTD: Tensor) -> Tensor:
            return self.dropout(self.mlp(h_BTD))  # type: ignore[no-any-return]

        scale = self.residual_scale
        if self.spec.parallel_residual:
            read, feed_on = self.attn_norms[0](x_BTD), self.mlp_norms[0](x_BTD)
            return x_BTD * scale + attend(read) + feed(feed_on)
        x_BTD = self.arrange(x_BTD, attend, self.attn_norms, scale)
        if self.cross_attn is not None and memory is not None:
            cross, (memory_BSD, memory_view) = self.cross_attn, memory

            def look(h_BTD: Tensor) -> Tensor:
                return self.dropout(cross(h_BTD, memory_view, memory_BSD=memory_BSD))  # type: ignore[no-any-return]

            x_BTD = self.arrange(x_BTD, look, self.cross_norms, scale)
        return self.arrange(x_BTD, feed, self.mlp_norms, scale)


class Stack(nn.Module):
    """Blocks, their shared position scheme, and the last norm."""

    is_decoder = False

    def __init__(
        self, spec: ModelSpec, choices: Choices, *, num_layers: int, bidirectional: bool, cross: bool
    ) -> None:
        super().__init__()
        position = choices["position"]
        assert issubclass(position.method, Position)
        own = dataclasses.replace(spec, num_layers=num_layers)
        self.position: Position = position.method(position.config, own, bidirectional=bidirectional)
        scale = spec.residual_scale if self.is_decoder else spec.encoder_residual_scale
        self.layers = nn.ModuleList(
            Block(spec, choices, i, cross=cross, residual_scale=scale) for i in range(num_layers)
        )
        last = choices["norm_position"].build().final_norm()
        self.norm: nn.Module = choices["norm"].build().build(spec.dim, spec) if last else nn.Identity()
        self.gradient_checkpointing = False

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
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if recompute:
            view.memo = None
        for layer in self.layers:
            if seen is not None:
                seen.append(x_BTD)
            if recompute:
                x_BTD = checkpoint(layer, x_BTD, view, self.position, None, memory, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, view, self.position, cache, memory)
        x_BTD = self.norm(x_BTD)
        if seen is not None:
            seen.append(x_BTD)
        return x_BTD


@dataclass
class Hidden:
    """What the backbone returns.

    Shapes: last_hidden_state BTD; hidden_states: num_layers + 1 of BTD, the last one normalised
    """

    last_hidden_state: Tensor
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None


class Transformer(Stack):
    """Tokens to hidden states: embedding, blocks, and an encoder where the architecture has one.

    Shapes: input_ids BT -> last_hidden_state BTD
    Raises: ConfigError for sequences beyond a learned table and prefixes longer than the sequence
    """

    is_decoder = True

    def __init__(self, spec: ModelSpec, choices: Choices) -> None:
        architecture: Architecture = choices["architecture"].build()
        encoder = architecture.has_encoder()
        check_spec(spec, choices)
        bidirectional = architecture.uses_prefix()
        super().__init__(
            spec, choices, num_layers=spec.num_layers, bidirectional=bidirectional, cross=encoder
        )
        self.spec, self.architecture = spec, architecture
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.dim)
        norm: Norm = choices["norm"].build()
        self.embed_norm: nn.Module = norm.build(spec.dim, spec) if spec.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(spec.dropout)
        self.encoder: Stack | None = None
        if encoder:
            self.encoder = Stack(
                spec, choices, num_layers=spec.num_encoder_layers, bidirectional=True, cross=False
            )

    def embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, position: Position, at_BT: Tensor
    ) -> Tensor:
        """Embeddings with positions, norm and dropout.

        Shapes: input_ids BT or inputs_embeds BTD, at_BT -> BTD
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed_tokens(input_ids)
            share = self.spec.embedding_gradient_scale
            if share != 1:
                inputs_embeds = inputs_embeds * share + inputs_embeds.detach() * (1 - share)
        assert inputs_embeds is not None
        x_BTD = position.embed(inputs_embeds, at_BT)
        return self.dropout(self.embed_norm(x_BTD))  # type: ignore[no-any-return]

    def encode(self, encoder_input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The encoder's reading of a source.

        Shapes: BS, BS -> BSD
        """
        if self.encoder is None:
            raise ConfigError(
                f"encoder_input_ids was given, but architecture={self.architecture.name} has no encoder; "
                "use architecture=encoder_decoder"
            )
        view = self.view(encoder_input_ids, past=0, attention_mask=attention_mask, visible=everything)
        self.check_length(self.encoder.position, view)
        x_BSD = self.embed(encoder_input_ids, None, self.encoder.position, view.query_position_BT)
        return self.encoder.blocks(x_BSD, view)

    def view(
        self,
        tokens: Tensor,
        *,
        past: int,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        prefix_length: Tensor | None = None,
        visible: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> View:
        """Who may read whom in this call; everything that restricts nothing is left out."""
        batch, num_queries = tokens.shape[:2]
        padding = None
        if attention_mask is not None and not (torch.is_grad_enabled() and past and document_ids is not None):
            padding = attention_mask.bool()
            if tokens.device.type != "meta" and bool(padding.all()):
                padding = None
        if padding is not None and padding.shape[1] != past + num_queries:
            raise ConfigError(
                f"attention_mask has {padding.shape[1]} columns; the cache holds {past} tokens and "
                f"{num_queries} are new, so it needs {past + num_queries}"
            )
        if document_ids is not None and past:
            raise ConfigError("document_ids packs whole sequences; it cannot be combined with a cache")
        key_position = positions(
            batch=batch,
            past=past,
            num_queries=num_queries,
            device=tokens.device,
            padding_BS=padding,
            document_BT=document_ids,
        )
        ordered = True
        if position_ids is not None and document_ids is None:  # documents decide their own positions
            given = position_ids if position_ids.dim() == 2 else position_ids[None]
            derived = key_position[:, past:]
            same = (given == derived) if padding is None else (given == derived) | ~padding[:, past:]
            if not bool(same.all()):
                ordered = False
                key_position = torch.cat((key_position[:, :past].expand(given.shape[0], -1), given), dim=1)
        prefix = None
        if prefix_length is not None and self.architecture.uses_prefix() and visible is None:
            prefix = torch.as_tensor(prefix_length, device=tokens.device).reshape(-1)
            if tokens.device.type == "cpu" and bool((prefix > past + num_queries).any()):
                raise ConfigError(
                    f"prefix_length={int(prefix.max())} is longer than the sequence of "
                    f"{past + num_queries} tokens"
                )
            if padding is not None:
                prefix = prefix + padding.long().argmax(dim=1)
        if visible is None:
            plain = type(self.architecture).visible is Architecture.visible
            plain = plain or (self.architecture.uses_prefix() and prefix is None)
            visible = causal if plain else self.architecture.visible
        return View(
            query_position_BT=key_position[:, past:],
            key_position_BS=key_position,
            past=past,
            visible=visible,
            document_BS=document_ids,
            padding_BS=padding,
            prefix_B=prefix,
            ordered=ordered,
        )

    def check_length(self, position: Position, view: View) -> None:
        """Refuse positions that the scheme does not have."""
        longest = position.max_length()
        if longest is not None and view.num_keys > longest:
            raise ConfigError(
                f"position={position.name} holds {longest} positions, but {view.num_keys} tokens were given; "
                "raise model.max_length or use a scheme without a table (rope, alibi, sinusoidal)"
            )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        document_ids: Tensor | None = None,
        prefix_length: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        output_hidden_states: bool = False,
        **unused: Any,
    ) -> Hidden:
        """One pass; `past_key_values` is any object with `update(k, v, layer)` and `get_seq_length()`."""
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if tokens is None:
            raise ConfigError("forward needs input_ids or inputs_embeds")
        view = self.view(
            tokens,
            past=int(past_key_values.get_seq_length()) if past_key_values is not None else 0,
            attention_mask=attention_mask,
            position_ids=position_ids,
            document_ids=document_ids,
            prefix_length=prefix_length,
        )
        self.check_length(self.position, view)
        tell_padding(past_key_values, view)
        memory = None
        if encoder_input_ids is not None and encoder_hidden_states is None:
            encoder_hidden_states = self.encode(encoder_input_ids, encoder_attention_mask)
        if encoder_hidden_states is not None:
            memory = (
                encoder_hidden_states,
                self.memory_view(tokens, encoder_hidden_states, encoder_attention_mask),
            )
        seen: list[Tensor] | None = [] if output_hidden_states else None
        x_BTD = self.embed(input_ids, inputs_embeds, self.position, view.query_position_BT)
        x_BTD = self.blocks(x_BTD, view, cache=past_key_values, memory=memory, seen=seen)
        return Hidden(
            x_BTD, past_key_values, tuple(seen) if seen is not None else None, encoder_hidden_states
        )

    def memory_view(self, tokens: Tensor, memory_BSD: Tensor, attention_mask: Tensor | None) -> View:
        """How decoder tokens read the encoder: everything but its padding."""
        padding = attention_mask.bool() if attention_mask is not None else None
        if padding is not None and bool(padding.all()):
            padding = None
        rows = torch.arange(tokens.shape[1], device=tokens.device)[None]
        columns = torch.arange(memory_BSD.shape[1], device=tokens.device)[None]
        return View(
            query_position_BT=rows,
            key_position_BS=columns,
            past=0,
            visible=everything,
            padding_BS=padding,
            cross=True,
        )


def tell_padding(cache: Any, view: View) -> None:
    """Let a fresh paged cache know each row's left padding, which it does not store."""
    if cache is None or view.past or view.padding_BS is None:
        return
    starts = view.padding_BS.long().argmax(dim=1).tolist()
    for layer in getattr(cache, "layers", ()):
        if hasattr(layer, "table"):
            layer.table.starts = list(starts)


class LanguageModel(nn.Module):
    """Backbone and output head; the Hugging Face class of harness.model.hf has the same parameter names.

    Shapes: input_ids BT -> logits BTV
    """

    def __init__(self, spec: ModelSpec, choices: Choices) -> None:
        super().__init__()
        self.spec = spec
        self.model = Transformer(spec, choices)
        self.lm_head = nn.Linear(spec.dim, spec.vocab_size, bias=False)
        if spec.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, **inputs: Any) -> Tensor:
        hidden = self.model(input_ids, **inputs).last_hidden_state
        if self.spec.logit_scale != 1:
            hidden = hidden * self.spec.logit_scale
        return self.lm_head(hidden)  # type: ignore[no-any-return]

    def get_input_embeddings(self) -> nn.Embedding:
        """As Hugging Face models name it, so that methods count their weights on either."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Likewise: the head, which is no layer to adapt or to pack."""
        return self.lm_head


def check_spec(spec: ModelSpec, choices: Choices) -> None:
    """Relations between the shape and the methods.

    Raises: ConfigError saying which option to change
    """
    encoder = choices["architecture"].build().has_encoder()
    if encoder and spec.num_encoder_layers < 1:
        raise ConfigError(
            f"architecture={choices['architecture'].method.name} has an encoder; set "
            f"model.num_encoder_layers to at least 1 (for example {spec.num_layers})"
        )
    if not encoder and spec.num_encoder_layers:
        raise ConfigError(
            f"model.num_encoder_layers={spec.num_encoder_layers}, but architecture="
            f"{choices['architecture'].method.name} has no encoder; set it to 0"
        )
    if spec.parallel_residual and choices["norm_position"].method.name != "pre":
        raise ConfigError("model.parallel_residual=true is defined for norm_position=pre only")
