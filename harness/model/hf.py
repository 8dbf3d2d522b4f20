"""Our transformer as a Hugging Face model: config, generation, saving, Auto classes.

Shapes: B batch, T tokens, V vocabulary
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import CacheLayerMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from harness.axes.attention import CacheKind
from harness.method import Choice
from harness.model.choices import from_plain
from harness.model.transformer import Transformer
from harness.ops.paged_cache import PagedCache, paged_layers
from harness.ops.state_cache import StateCache
from harness.spec import ModelSpec


class HarnessConfig(PreTrainedConfig):  # type: ignore[misc]
    """The shape and the methods of a model, as config.json keeps them."""

    model_type = "harness"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        spec: Mapping[str, Any] | None = None,
        methods: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        shape = ModelSpec(**(spec or {"vocab_size": 1}))
        self.spec = dataclasses.asdict(shape)
        self.methods = {axis: dict(node) for axis, node in (methods or {}).items()}
        # Names that PEFT, generation and other tools of the Hugging Face world ask for.
        derived = {
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.dim,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": kv_heads(self.methods, shape),
            "head_dim": shape.head_dim,
            "intermediate_size": shape.ffn_dim,
            "max_position_embeddings": shape.max_length,
            "tie_word_embeddings": shape.tie_embeddings,
        }
        for name, value in derived.items():
            kwargs.pop(name, None)
            setattr(self, name, value)
        super().__init__(tie_word_embeddings=shape.tie_embeddings, **kwargs)

    @classmethod
    def of(cls, spec: ModelSpec, methods: Mapping[str, Mapping[str, Any]], **kwargs: Any) -> HarnessConfig:
        """The config of a shape and plain choices."""
        return cls(spec=dataclasses.asdict(spec), methods=methods, **kwargs)

    def model_spec(self) -> ModelSpec:
        """The typed shape."""
        return ModelSpec(**self.spec)


def kv_heads(methods: Mapping[str, Mapping[str, Any]], spec: ModelSpec) -> int:
    """Key/value heads that the cache holds; all of them where the attention is not known yet."""
    if "attention" not in methods:
        return spec.num_heads
    choice = from_plain({"attention": methods["attention"]})["attention"]
    return int(choice.method.num_kv_heads(choice.config, spec.num_heads))  # type: ignore[attr-defined]


class HarnessForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The composable transformer with its output head, as any Hugging Face tool expects it."""

    config_class = HarnessConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _no_split_modules = ("Block",)

    def __init__(self, config: HarnessConfig, choices: Mapping[str, Choice] | None = None) -> None:
        super().__init__(config)
        spec = config.model_spec()
        self.model = Transformer(spec, from_plain(config.methods) if choices is None else choices)
        self.lm_head = nn.Linear(spec.dim, spec.vocab_size, bias=False)
        self.logit_scale = spec.logit_scale
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face calls this for what a checkpoint lacks, non-persistent buffers included."""
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.spec["init_std"])
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        reset = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        document_ids: Tensor | None = None,
        prefix_length: Tensor | None = None,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token; `labels` are unshifted, as Hugging Face has it.

        Shapes: input_ids, labels BT; attention_mask BS with the cache; logits BTV or its last tokens
        """
        if use_cache and past_key_values is None and not self.model.gradient_checkpointing:
            past_key_values = self.new_cache()
        hidden = self.model(
            input_ids,
            attention_mask,
            position_ids,
            document_ids=document_ids,
            prefix_length=prefix_length,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            encoder_input_ids=encoder_input_ids,
            encoder_attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            output_hidden_states=bool(output_hidden_states),
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        last = hidden.last_hidden_state[:, kept]
        logits = self.lm_head(last if self.logit_scale == 1 else last * self.logit_scale)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=hidden.past_key_values,
            hidden_states=hidden.hidden_states,
        )
        return output.to_tuple() if return_dict is False else output  # type: ignore[no-any-return]

    def new_cache(self) -> Cache:
        """An empty cache of the kind that the attention keeps: states, blocks, or growing tensors."""
        own = getattr(self, "context_cache", None)  # of a context method that replaces the attention
        if own is not None:
            return own()  # type: ignore[no-any-return]
        layers: list[Any] = [layer.self_attn for layer in self.model.layers]
        if layers[0].recurrent:
            return Cache(layers=[StateCache() for _ in layers])
        if layers[0].config.cache is CacheKind.paged:
            return Cache(layers=paged_layers(len(layers)))
        return DynamicCache(config=self.config)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        chosen = model_kwargs.get("past_key_values") is not None or generation_config.cache_implementation
        if not chosen and generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = self.new_cache()
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any
    ) -> nn.Embedding:
        """Embedding and head with another number of rows; the shape in the config follows."""
        table = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.config.spec["vocab_size"] = self.config.vocab_size = table.num_embeddings
        self.model.spec = dataclasses.replace(self.model.spec, vocab_size=table.num_embeddings)
        return table  # type: ignore[no-any-return]

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """Hugging Face's generate; the prompt is the prefix of a prefix decoder and the source of an encoder.

        Shapes: inputs BT -> prompt and continuation, whatever the architecture
        """
        prompt = inputs if inputs is not None else kwargs.pop("input_ids", None)
        architecture = self.model.architecture
        if prompt is not None and architecture.uses_prefix() and kwargs.get("prefix_length") is None:
            mask = kwargs.get("attention_mask")
            full = prompt.new_full((len(prompt),), prompt.shape[1])
            kwargs["prefix_length"] = full if mask is None else mask.sum(dim=1)
        if prompt is not None and architecture.has_encoder() and "encoder_hidden_states" not in kwargs:
            return self._generate_from_source(prompt, **kwargs)
        return super().generate(prompt, **kwargs)

    def _generate_from_source(self, prompt: Tensor, **kwargs: Any) -> Any:
        """Encode the source once, decode from the start token, and answer prompt + continuation."""
        source = kwargs.pop("encoder_input_ids", None)
        config = kwargs.get("generation_config") or self.generation_config
        mask = kwargs.pop("encoder_attention_mask", None)
        start = prompt
        if source is None:
            source, mask = prompt, kwargs.pop("attention_mask", None)
            start_id = kwargs.pop("decoder_start_token_id", None)
            start_id = config.decoder_start_token_id if start_id is None else start_id
            # Trained here, a decoder starts from the source's last token; a T5 states its own start token.
            start = prompt[:, -1:] if start_id is None else prompt.new_full((len(prompt), 1), start_id)
        out = super().generate(
            start,
            encoder_hidden_states=self.model.encode(source, mask),
            encoder_attention_mask=mask,
            **kwargs,
        )
        if start is prompt:
            return out
        rows = out if isinstance(out, Tensor) else out.sequences
        repeats = len(rows) // len(prompt)
        rows = torch.cat((prompt.repeat_interleave(repeats, dim=0), rows[:, 1:]), dim=1)
        if isinstance(out, Tensor):
            return rows
        out.sequences = rows
        return out


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM know `model_type: harness`, and HF caches know our layers."""
    CacheLayerMixin.register(StateCache)
    CacheLayerMixin.register(PagedCache)
    AutoConfig.register(HarnessConfig.model_type, HarnessConfig, exist_ok=True)
    AutoModelForCausalLM.register(HarnessConfig, HarnessForCausalLM, exist_ok=True)


register()
