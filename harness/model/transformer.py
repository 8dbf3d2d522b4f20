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

from harness.axes.architecture import Architecture
from harness.axes.attention import Attention, no_scores
from harness.axes.feed_forward import FeedForward
from harness.axes.norm import Norm
from harness.axes.norm_position import NormPosition
from harness.axes.position import Position
from harness.errors import ConfigError
from harness.method import Choice
from harness.model.pattern import layer_choices, unique
from harness.ops.cache_layer import PositionCache, beside
from harness.ops.view import (
    View,
    causal,
    document_starts,
    everything,
    has_holes,
    known,
    positions,
    real_tokens,
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
        self.dropout = nn.Dropout(spec.dropout)

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
        """Create the blocks; a layer whose pattern names another position scheme gets one of its own."""
        own = dataclasses.replace(spec, num_layers=num_layers)
        of_layer = [layer_choices(spec, choices, i) for i in range(num_layers)]

        def scheme(choice: Choice) -> Position:
            assert issubclass(choice.method, Position)
            return choice.method(choice.config, own, bidirectional=bidirectional)

        self.position: Position = scheme(choices["position"])
        schemes = [choices["position"]]
        schemes += [chosen for chosen in unique(c["position"] for c in of_layer) if chosen not in schemes]
        self.other_positions = nn.ModuleList(scheme(choice) for choice in schemes[1:])
        self.position_of_layer = [schemes.index(chosen["position"]) for chosen in of_layer]
        scale = spec.residual_scale if self.is_decoder else spec.encoder_residual_scale
        self.layers = nn.ModuleList(
            self.block_type(spec, chosen, i, cross=cross, residual_scale=scale)
            for i, chosen in enumerate(of_layer)
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


@dataclass
class Hidden:
    """What the backbone returns.

    Shapes: last_hidden_state BTD; hidden_states: num_layers + 1 of BTD, the last one normalised; attentions
    of each layer BNTS, where asked for
    """

    last_hidden_state: Tensor
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None


class Transformer(Stack):
    """Tokens to hidden states: embedding, blocks, and an encoder where the architecture has one.

    Shapes: input_ids BT -> last_hidden_state BTD
    Raises: ConfigError for sequences beyond a learned table and prefixes longer than the sequence
    """

    is_decoder = True
    stack_type: type[Stack] = Stack
    """Class of the encoder."""

    def __init__(self, spec: ModelSpec, choices: Choices) -> None:
        nn.Module.__init__(self)
        self.build(spec, choices)

    def build(self, spec: ModelSpec, choices: Choices) -> None:
        """Create the parts."""
        architecture: Architecture = choices["architecture"].build()
        encoder = architecture.has_encoder()
        check_spec(spec, choices)
        self.spec, self.architecture = spec, architecture
        self.build_blocks(
            spec,
            choices,
            num_layers=spec.num_layers,
            bidirectional=architecture.uses_prefix(),
            cross=encoder,
        )
        width = spec.embedding_dim or spec.dim
        self.embed_tokens = nn.Embedding(spec.vocab_size, width)
        norm: Norm = choices["norm"].build()
        self.embed_norm: nn.Module = norm.build(spec.dim, spec) if spec.embedding_norm else nn.Identity()
        if width != spec.dim:
            self.embed_in = nn.Linear(width, spec.dim, bias=False)
            self.embed_out = nn.Linear(spec.dim, width, bias=False)
        self.dropout = nn.Dropout(spec.dropout)
        self.encoder: Stack | None = None
        if encoder:
            self.encoder = self.stack_type(
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
        if self.spec.embedding_scale != 1:
            inputs_embeds = inputs_embeds * self.spec.embedding_scale
        if self.spec.embedding_dim not in (None, self.spec.dim):
            inputs_embeds = self.embed_in(inputs_embeds)
        x_BTD = position.embed(inputs_embeds, at_BT)
        return self.dropout(self.embed_norm(x_BTD))  # type: ignore[no-any-return]

    def encode(
        self,
        encoder_input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The encoder's reading of a source.

        Shapes: BS or BSD, BS -> BSD
        """
        if self.encoder is None:
            raise ConfigError(
                f"encoder_input_ids was given, but architecture={self.architecture.name} has no encoder; "
                "use architecture=encoder_decoder"
            )
        source = encoder_input_ids if inputs_embeds is None else inputs_embeds
        assert source is not None
        view = self.view(source, attention_mask=attention_mask, visible=everything)
        self.check_length(self.encoder.position, view)
        x_BSD = self.embed(encoder_input_ids, inputs_embeds, self.encoder.position, view.query_position_BT)
        return self.encoder.blocks(x_BSD, view)

    def view(
        self,
        tokens: Tensor,
        *,
        cache: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        prefix_length: Tensor | None = None,
        visible: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> View:
        """Who may read whom in this call; everything that restricts nothing is left out."""
        past = int(cache.get_seq_length()) if cache is not None else 0
        num_queries = tokens.shape[1]
        padding = real_tokens(attention_mask)
        if padding is not None and padding.shape[1] != past + num_queries:
            raise ConfigError(
                f"attention_mask has {padding.shape[1]} columns; the cache holds {past} tokens and "
                f"{num_queries} are new, so it needs {past + num_queries}"
            )
        document = None
        if document_ids is not None:  # given on the host, they are read there, and nobody waits for a device
            if past:
                raise ConfigError("document_ids packs whole sequences; it cannot be combined with a cache")
            starts = document_starts(document_ids)
            if padding is not None:  # padding is a document of its own
                starts, padding = starts | document_starts(padding).to(starts.device), None
            document = starts.long().cumsum(1) if known(starts.any()) else None
        key_position = positions(
            past=past,
            num_queries=num_queries,
            device=tokens.device if document is None else document.device,
            padding_BS=padding,
            document_BT=document,
        ).to(tokens.device)
        ordered, shifted = padding is None or not known(has_holes(padding), otherwise=True), False
        if document is None:  # documents decide their own positions
            key_position, even, shifted = self.given_positions(key_position, padding, position_ids, cache)
            ordered = ordered and even
        prefix = None
        if prefix_length is not None and self.architecture.uses_prefix() and visible is None:
            prefix = torch.as_tensor(prefix_length, device=tokens.device).reshape(-1)
            if tokens.device.type == "cpu" and known(prefix.max() > past + num_queries, otherwise=False):
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
            document_BS=None if document is None else document.to(tokens.device),
            stated_document_BS=document,
            padding_BS=padding,
            prefix_B=prefix,
            ordered=ordered,
            shifted=shifted,
        )

    def given_positions(
        self, derived_BS: Tensor, padding_BS: Tensor | None, position_ids: Tensor | None, cache: Any
    ) -> tuple[Tensor, bool, bool]:
        """Positions of all keys, whether their differences are those of slots, and whether they are shifted.

        Positions of one's own are kept beside a cache's keys, so that later calls know those of the past; a
        call that gives none counts on from the last one.

        Shapes: derived_BS, padding_BS, position_ids BT (or T) -> BS
        """
        kept = None
        if cache is not None:
            kept = beside(cache, PositionCache, index=0, num_layers=self.spec.num_layers, make=False)
        if position_ids is None and kept is None:
            return derived_BS, True, False
        num_queries = derived_BS.shape[1]
        if position_ids is not None:
            position_ids = position_ids if position_ids.dim() == 2 else position_ids[None]
            num_queries = position_ids.shape[1]
        past = derived_BS.shape[1] - num_queries
        if kept is not None and kept.positions is not None:
            past = kept.seen
            before_BS, last_B1 = kept.positions, kept.positions[:, -1:] - derived_BS[:, past - 1 : past]
            given_BT = derived_BS[:, past:] + last_B1 if position_ids is None else position_ids
        else:
            assert position_ids is not None
            given_BT, before_BS = position_ids, derived_BS[:, :past]
        shift_BT = given_BT - derived_BS[:, past:]
        same = shift_BT == 0 if padding_BS is None else (shift_BT == 0) | ~padding_BS[:, past:]
        if kept is None and known(same.all(), otherwise=False):
            return derived_BS, True, False
        rows = max(len(before_BS), len(given_BT))
        whole_BS = torch.cat((before_BS.expand(rows, -1), given_BT.expand(rows, -1)), dim=1)
        if cache is not None:
            kept = kept or beside(cache, PositionCache, index=0, num_layers=self.spec.num_layers, make=True)
        if kept is not None:
            kept.store(whole_BS)
        shift_BS = whole_BS - derived_BS
        even = shift_BS == shift_BS[:, -1:]
        even = even if padding_BS is None else even | ~padding_BS
        return whole_BS, known(even.all(), otherwise=False), True

    def check_length(self, position: Position, view: View) -> None:
        """Refuse positions that the scheme does not have; padding and packed documents need none."""
        longest = position.max_length()
        if longest is None or (view.num_keys <= longest and not view.shifted):
            return
        last = known(view.query_position_BT.max() + 1, otherwise=0)
        if last > longest:
            raise ConfigError(
                f"position={position.name} holds {longest} positions, but {last} tokens were given; "
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
        output_attentions: bool = False,
        **unused: Any,
    ) -> Hidden:
        """One pass; `past_key_values` is any object with `update(k, v, layer)` and `get_seq_length()`."""
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if tokens is None:
            raise ConfigError("forward needs input_ids or inputs_embeds")
        if input_ids is not None and inputs_embeds is not None:
            raise ConfigError("forward takes input_ids or inputs_embeds, not both")
        view = self.view(
            tokens,
            cache=past_key_values,
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
        looked: list[Tensor] | None = None
        if output_attentions:
            view.weights = []
            if memory is not None:
                memory[1].weights = looked = []
        seen: list[Tensor] | None = [] if output_hidden_states else None
        x_BTD = self.embed(input_ids, inputs_embeds, self.position, view.query_position_BT)
        x_BTD = self.blocks(x_BTD, view, cache=past_key_values, memory=memory, seen=seen)
        return Hidden(
            last_hidden_state=x_BTD,
            past_key_values=past_key_values,
            hidden_states=tuple(seen) if seen is not None else None,
            attentions=tuple(view.weights) if view.weights is not None else None,
            cross_attentions=tuple(looked) if looked is not None else None,
            encoder_last_hidden_state=encoder_hidden_states,
        )

    def logits(self, hidden_BTD: Tensor, head: nn.Linear) -> Tensor:
        """Scores of the next token, with what the shape does before and after the head.

        Shapes: BTD -> BTV
        """
        spec = self.spec
        if spec.embedding_dim not in (None, spec.dim):
            hidden_BTD = self.embed_out(hidden_BTD)
        if spec.logit_scale != 1:
            hidden_BTD = hidden_BTD * spec.logit_scale
        logits_BTV: Tensor = head(hidden_BTD)
        if spec.logit_cap is not None:
            logits_BTV = spec.logit_cap * torch.tanh(logits_BTV / spec.logit_cap)
        return logits_BTV

    def memory_view(self, tokens: Tensor, memory_BSD: Tensor, attention_mask: Tensor | None) -> View:
        """How decoder tokens read the encoder: everything but its padding."""
        rows = torch.arange(tokens.shape[1], device=tokens.device)[None]
        columns = torch.arange(memory_BSD.shape[1], device=tokens.device)[None]
        return View(
            query_position_BT=rows,
            key_position_BS=columns,
            past=0,
            visible=everything,
            padding_BS=real_tokens(attention_mask),
            cross=True,
        )


def tell_padding(cache: Any, view: View) -> None:
    """Let a fresh paged cache know each row's left padding, which it does not store."""
    if cache is None or view.past or view.padding_BS is None:
        return
    tables = [layer.table for layer in getattr(cache, "layers", ()) if hasattr(layer, "table")]
    starts = view.padding_BS.long().argmax(dim=1).tolist() if tables else []
    for table in tables:
        table.starts = list(starts)


class LanguageModel(nn.Module):
    """Backbone and output head; the Hugging Face class of harness.model.hf has the same parameter names.

    Shapes: input_ids BT -> logits BTV
    """

    def __init__(self, spec: ModelSpec, choices: Choices) -> None:
        super().__init__()
        self.spec, self.choices = spec, choices
        self.model = Transformer(spec, choices)
        self.lm_head = nn.Linear(spec.embedding_dim or spec.dim, spec.vocab_size, bias=False)
        if spec.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, **inputs: Any) -> Tensor:
        hidden: Tensor = self.model(input_ids, **inputs).last_hidden_state
        return self.model.logits(hidden, self.lm_head)

    def get_input_embeddings(self) -> nn.Embedding:
        """As Hugging Face models name it, so that methods count their weights on either."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Likewise: the head, which is no layer to adapt or to pack."""
        return self.lm_head


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
