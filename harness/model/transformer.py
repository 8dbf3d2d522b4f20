"""The composable transformer: blocks made of the chosen methods. Plain torch, no Hugging Face.

Shapes: B batch, T tokens, S keys, D model dim, V vocabulary, N heads
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.axes.architecture import Architecture
from harness.axes.norm import Norm
from harness.axes.position import Position
from harness.errors import ConfigError
from harness.model.blocks import Choices, Stack
from harness.model.views import check_length, memory_view, tell_padding, view_of
from harness.ops.view import (
    View,
    everything,
)
from harness.spec import ModelSpec


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
        self.dropout: nn.Module = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
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
        view = self._view(source, attention_mask=attention_mask, visible=everything)
        check_length(self.encoder.position, view)
        x_BSD = self.embed(encoder_input_ids, inputs_embeds, self.encoder.position, view.query_position_BT)
        return self.encoder.blocks(x_BSD, view)

    def _view(self, tokens: Tensor, **call: Any) -> View:
        return view_of(tokens, architecture=self.architecture, num_layers=self.spec.num_layers, **call)

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
        view = self._view(
            tokens,
            cache=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            document_ids=document_ids,
            prefix_length=prefix_length,
        )
        check_length(self.position, view)
        tell_padding(past_key_values, view)
        memory = None
        if encoder_input_ids is not None and encoder_hidden_states is None:
            encoder_hidden_states = self.encode(encoder_input_ids, encoder_attention_mask)
        if encoder_hidden_states is not None:
            memory = (
                encoder_hidden_states,
                memory_view(tokens, encoder_hidden_states, encoder_attention_mask),
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
    if spec.parallel_residual and encoder:
        raise ConfigError(
            "model.parallel_residual=true adds attention and feed-forward to what both read, which leaves no "
            f"place to read a source; set it to false, or use another architecture than "
            f"{choices['architecture'].method.name}"
        )
    if spec.parallel_residual and choices["norm_position"].method.name != "pre":
        raise ConfigError("model.parallel_residual=true is defined for norm_position=pre only")
