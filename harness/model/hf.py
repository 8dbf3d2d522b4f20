"""Our transformer as a Hugging Face model: config, generation, saving, Auto classes.

Shapes: B batch, T tokens, V vocabulary
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import CacheLayerMixin, DynamicLayer
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GenericForSequenceClassification, GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)

from harness.axes.attention import CacheKind
from harness.method import Choice
from harness.model.blocks import Block, Stack
from harness.model.choices import from_plain
from harness.model.generation import PromptedGeneration
from harness.model.transformer import Transformer
from harness.ops.cache_layer import CacheLayer
from harness.ops.paged_cache import PagedCache, paged_layers
from harness.spec import ModelSpec

SHAPE = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "head_dim": "head_dim",
    "intermediate_size": "ffn_dim",
    "tie_word_embeddings": "tie_embeddings",
}
"""Names that PEFT, generation and other tools of the Hugging Face world ask for -> fields of a spec."""


class HarnessConfig(PreTrainedConfig):  # type: ignore[misc]
    """The shape and the methods of a model, as config.json keeps them."""

    model_type = "harness"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        spec: Mapping[str, Any] | None = None,
        methods: Mapping[str, Mapping[str, Any]] | None = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.use_cache = use_cache
        shape = ModelSpec(**(spec or {"vocab_size": 1}))
        self.spec = dataclasses.asdict(shape)
        self.methods = {axis: dict(node) for axis, node in (methods or {}).items()}
        derived = {name: getattr(shape, own) for name, own in SHAPE.items()}
        derived |= {
            "num_key_value_heads": kv_heads(self.methods, shape),
            "max_position_embeddings": shape.max_length,
        }
        for name, value in derived.items():
            kwargs.pop(name, None)
            setattr(self, name, value)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            kwargs.setdefault(name, None)
        super().__init__(tie_word_embeddings=shape.tie_embeddings, **kwargs)

    @classmethod
    def of(cls, spec: ModelSpec, methods: Mapping[str, Mapping[str, Any]], **kwargs: Any) -> HarnessConfig:
        """The config of a shape and plain choices."""
        return cls(spec=dataclasses.asdict(spec), methods=methods, **kwargs)

    def model_spec(self) -> ModelSpec:
        """The typed shape, as the names that other tools may have set say it."""
        spec = ModelSpec(**{**self.spec, **{own: getattr(self, name) for name, own in SHAPE.items()}})
        self.spec = dataclasses.asdict(spec)
        return spec


def kv_heads(methods: Mapping[str, Mapping[str, Any]], spec: ModelSpec) -> int:
    """Key/value heads that the cache holds; all of them where the attention is not known yet."""
    if "attention" not in methods:
        return spec.num_heads
    choice = from_plain({"attention": methods["attention"]})["attention"]
    return int(choice.method.num_kv_heads(choice.config, spec.num_heads))  # type: ignore[attr-defined]


class HarnessBlock(GradientCheckpointingLayer, Block):  # type: ignore[misc]
    """A block whose activations can be computed again in the backward pass."""


class HarnessStack(Stack):
    """An encoder of such blocks."""

    block_type = HarnessBlock


class HarnessPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What our models share: their config, fresh weights for what a checkpoint lacks, and caches."""

    config_class = HarnessConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("HarnessBlock",)

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face calls this for what a checkpoint lacks, non-persistent buffers included."""
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.spec["init_std"])
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        reset = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset()

    def shown(self, name: str, asked: bool | None) -> bool:
        """Whether an optional output is wanted: as this call says, else as the config does."""
        return bool(getattr(self.config, name, False)) if asked is None else asked

    def caches(self, asked: bool | None) -> bool:
        """Whether a call keeps a cache: as it says, else as the config does, but not where a model trains."""
        return self.config.use_cache and not self.training if asked is None else asked


class HarnessModel(Transformer, HarnessPreTrainedModel):  # type: ignore[misc]
    """The backbone: tokens to hidden states, without a head."""

    block_type = HarnessBlock
    stack_type = HarnessStack

    def __init__(self, config: HarnessConfig, choices: Mapping[str, Choice] | None = None) -> None:
        HarnessPreTrainedModel.__init__(self, config)  # type: ignore[call-arg]
        self.build(config.model_spec(), from_plain(config.methods) if choices is None else choices)
        self.post_init()  # type: ignore[operator]

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Shapes: input_ids BT or inputs_embeds BTD; attention_mask BS with the cache -> BTD"""
        if self.recomputes:
            past_key_values = None
        elif past_key_values is None and self.caches(use_cache):
            past_key_values = self.new_cache()
        hidden = Transformer.forward(
            self,
            input_ids,
            attention_mask,
            position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            output_attentions=self.shown("output_attentions", output_attentions),
            output_hidden_states=self.shown("output_hidden_states", output_hidden_states),
            **inputs,
        )
        output = BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden.last_hidden_state,
            past_key_values=hidden.past_key_values,
            hidden_states=hidden.hidden_states,
            attentions=hidden.attentions,
            cross_attentions=hidden.cross_attentions,
        )
        config: Any = self.config
        tuples = return_dict is False or (return_dict is None and not config.return_dict)
        return output.to_tuple() if tuples else output  # type: ignore[no-any-return]

    def new_cache(self) -> Cache:
        """An empty cache, of whose layers each is what its attention keeps."""
        attentions: list[Any] = [layer.self_attn for layer in self.layers]
        cache = DynamicCache()  # of which peft knows that it has no end
        pages = [each.config.cache is CacheKind.paged and not each.recurrent for each in attentions]
        blocks = iter(paged_layers(sum(pages)))
        cache.layers = [
            next(blocks) if paged else attention.new_cache() or DynamicLayer()
            for attention, paged in zip(attentions, pages, strict=True)
        ]
        return cache

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value


class HarnessForCausalLM(HarnessPreTrainedModel, PromptedGeneration, GenerationMixin):  # type: ignore[misc]
    """The composable transformer with its output head, as any Hugging Face tool expects it."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: HarnessConfig, choices: Mapping[str, Choice] | None = None) -> None:
        super().__init__(config)
        spec = config.model_spec()
        self.model = HarnessModel(config, choices)
        self.lm_head = nn.Linear(spec.embedding_dim or spec.dim, spec.vocab_size, bias=False)
        attentions: list[Any] = [layer.self_attn for layer in self.model.layers]
        # What cannot be taken back token by token, as assisted generation does.
        self._is_stateful = any(attention.recurrent for attention in attentions)
        self.post_init()

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits of the next token; `labels` are unshifted, as Hugging Face has it.

        Shapes: input_ids, labels BT; attention_mask BS with the cache; logits BTV or its last tokens
        """
        if past_key_values is None and not self.model.recomputes and self.caches(use_cache):
            past_key_values = self.new_cache()
        hidden = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            document_ids=document_ids,
            prefix_length=prefix_length,
            encoder_input_ids=encoder_input_ids,
            encoder_attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.logits(hidden.last_hidden_state[:, kept], self.lm_head)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=hidden.past_key_values,
            hidden_states=hidden.hidden_states,
            attentions=hidden.attentions,
            cross_attentions=hidden.cross_attentions,
        )
        tuples = return_dict is False or (return_dict is None and not self.config.return_dict)
        return output.to_tuple() if tuples else output  # type: ignore[no-any-return]

    def new_cache(self) -> Cache:
        """An empty cache of the kind that the attention keeps: states, windows, blocks, growing tensors."""
        own = getattr(self, "context_cache", None)  # of a context method that replaces the attention
        return self.model.new_cache() if own is None else own()  # type: ignore[no-any-return]

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


class HarnessForSequenceClassification(
    GenericForSequenceClassification,  # type: ignore[misc]
    HarnessPreTrainedModel,
):
    """The backbone with a head that scores each sequence by its last token."""


def register() -> None:
    """Make the Auto classes know `model_type: harness`, and HF caches know our layers."""
    CacheLayerMixin.register(CacheLayer)
    CacheLayerMixin.register(PagedCache)
    AutoConfig.register(HarnessConfig.model_type, HarnessConfig, exist_ok=True)
    AutoModel.register(HarnessConfig, HarnessModel, exist_ok=True)
    AutoModelForCausalLM.register(HarnessConfig, HarnessForCausalLM, exist_ok=True)
    AutoModelForSequenceClassification.register(
        HarnessConfig, HarnessForSequenceClassification, exist_ok=True
    )


register()
