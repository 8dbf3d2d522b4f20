"""Llama, Mistral, Qwen2 and Qwen3: pre-RMSNorm, SwiGLU, rotary positions, grouped queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import (
    ATTENTIONS,
    Family,
    Methods,
    Rule,
    decoder,
    head_methods,
    kv_heads_of,
    layer_attention,
    layer_rules,
    same,
)
from harness.model.families.rope import METHODS, rope_config, rope_of
from harness.spec import ModelSpec

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096, "max_position_embeddings": 32768},
    "qwen3": {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
    },
    "phi3": {
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    },
    "mixtral": {
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "max_position_embeddings": 131072,
    },
}
"""What transformers takes for an option that a config leaves out."""
_WINDOWED = ("mistral", "phi3", "mixtral")
"""Model types whose layers all have the window that the config names."""


class Llama(Family):
    """One mapping for four model types; they differ in biases, windows and query/key norms.

    Paper: Touvron et al. 2023, arXiv:2302.13971; Jiang et al. 2023, arXiv:2310.06825
    """

    prefix = "model."
    ignored = ("rotary_emb.inv_freq",)
    expresses = frozenset({"layer_pattern"})
    feed_forward_method = "swiglu"

    def __init__(self, model_type: str) -> None:
        self.model_type, self.architecture = model_type, _ARCHITECTURES[model_type]

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        config = {**_LEFT_OUT[self.model_type], **config}
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise self.refuse(f"hidden_act={config['hidden_act']}")
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        attention_bias = bool(config.get("attention_bias", False))
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            ffn_dim=config["intermediate_size"],
            max_length=config["max_position_embeddings"],
            bias=bool(config.get("mlp_bias", False)),
            qkv_bias=True if self.model_type == "qwen2" else attention_bias,
            out_bias=False if self.model_type == "qwen2" else attention_bias,
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            init_std=config.get("initializer_range", 0.02),
            qk_norm=self.model_type == "qwen3",
        )
        kinds = self.layer_types(config)
        unknown = set(kinds) - {"full_attention", "sliding_attention"}
        if unknown:
            raise self.refuse(f"layers of kind {', '.join(sorted(unknown))}")
        attention, pattern = layer_attention(config, head_methods(heads, kv_heads), kinds)
        spec = dataclasses.replace(spec, layer_pattern=pattern)
        return spec, decoder(attention, rope_of(config, self), "rmsnorm", self.feed_forward(config))

    def feed_forward(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The feed-forward choice of a config."""
        return {"method": "swiglu"}

    def layer_types(self, config: Mapping[str, Any]) -> list[str]:
        """What each layer reads: `full_attention`, or a window as `sliding_attention`."""
        layers, window = config["num_hidden_layers"], config.get("sliding_window")
        if self.model_type == "llama" or window is None:
            return ["full_attention"] * layers
        if self.model_type in _WINDOWED:
            return ["sliding_attention"] * layers
        if not config.get("use_sliding_window", False):
            return ["full_attention"] * layers
        first = config.get("max_window_layers", 28)
        derived = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
        return list(config.get("layer_types") or derived)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=ATTENTIONS,
            position=METHODS,
            norm="rmsnorm",
            norm_position="pre",
            feed_forward=self.feed_forward_method,
        )
        self.expect_common(spec)
        sliding, window = self.expect_windows(spec, methods)
        self.expect(spec.qk_norm == (self.model_type == "qwen3"), f"qk_norm={spec.qk_norm}")
        if self.model_type != "phi3":
            self.expect(methods["position"].get("fraction", 1.0) == 1, "partly rotated heads")
        self._expect_shape(spec)
        qkv_bias, out_bias = _biases(spec)
        if self.model_type == "qwen2":
            self.expect(qkv_bias and not out_bias and not spec.bias, "these biases")
        elif self.model_type in _WINDOWED:
            self.expect(not (qkv_bias or out_bias or spec.bias), "biases")
        else:
            self.expect(qkv_bias == out_bias, "a bias on some attention projections only")
            self.expect(self.model_type == "llama" or not spec.bias, "feed-forward biases")
        config: dict[str, Any] = {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "num_key_value_heads": kv_heads_of(spec, methods["attention"]),
            "head_dim": spec.head_dim,
            "intermediate_size": spec.ffn_dim,
            "max_position_embeddings": spec.max_length,
            "rms_norm_eps": spec.norm_eps,
            "initializer_range": spec.init_std,
            "hidden_act": "silu",
            "tie_word_embeddings": spec.tie_embeddings,
            **rope_config(methods["position"]),
        }
        if self.model_type in ("llama", "qwen3"):
            config["attention_bias"] = qkv_bias
        if self.model_type == "llama":
            config["mlp_bias"] = spec.bias
        return config | self._window_config(sliding, window)

    def _window_config(self, sliding: list[str], window: int | None) -> dict[str, Any]:
        """What a config says of windows.

        Raises: IncompatibleError where this family has none, or none of this pattern
        """
        if self.model_type in _WINDOWED:
            self.expect(len(set(sliding)) == 1, "windows in some layers only")
            return {"sliding_window": window}
        if window is None:
            return {}
        self.expect(self.model_type != "llama", "a sliding window")
        return {"use_sliding_window": True, "sliding_window": window, "layer_types": sliding}

    def _expect_shape(self, spec: ModelSpec) -> None:
        self.expect(not spec.parallel_residual, "a parallel residual")
        self.expect(not spec.embedding_norm, "a norm on embeddings")
        self.expect(spec.attention_scale is None, "another attention scale")
        self.expect(spec.logit_scale == 1, "scaled logits")

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        _, out_bias = _biases(spec)
        yield same("model.embed_tokens.weight", "model.embed_tokens.weight")
        for i in range(spec.num_layers):
            here = f"model.layers.{i}"
            yield from self.projection_rules(f"{here}.self_attn", spec, methods)
            yield from layer_rules(f"{here}.self_attn.o_proj", f"{here}.self_attn.o_proj", bias=out_bias)
            if spec.qk_norm:
                for name in ("q_norm", "k_norm"):
                    yield same(f"{here}.self_attn.{name}.weight", f"{here}.self_attn.{name}.weight")
            yield from self.feed_forward_rules(f"{here}.mlp", spec, methods)
            yield same(f"{here}.input_layernorm.weight", f"{here}.attn_norms.0.weight")
            yield same(f"{here}.post_attention_layernorm.weight", f"{here}.mlp_norms.0.weight")
        yield same("model.norm.weight", "model.norm.weight")
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")

    def projection_rules(self, here: str, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        """Queries, keys and values of a layer, which has the same name on both sides."""
        for name in ("q_proj", "k_proj", "v_proj"):
            yield from layer_rules(f"{here}.{name}", f"{here}.{name}", bias=_biases(spec)[0])

    def feed_forward_rules(self, here: str, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        """The feed-forward of a layer, which has the same name on both sides."""
        for name in ("gate_proj", "up_proj", "down_proj"):
            yield from layer_rules(f"{here}.{name}", f"{here}.{name}", bias=spec.bias)


def _biases(spec: ModelSpec) -> tuple[bool, bool]:
    qkv = spec.bias if spec.qkv_bias is None else spec.qkv_bias
    return qkv, spec.bias if spec.out_bias is None else spec.out_bias


def family(model_type: str) -> Family:
    """The family of one of the model types."""
    return Llama(model_type)
