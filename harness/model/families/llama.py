"""Llama, Mistral, Qwen2 and Qwen3: pre-RMSNorm, SwiGLU, rotary positions, grouped queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import (
    Family,
    Methods,
    Rule,
    decoder,
    head_methods,
    kv_heads_of,
    layer_rules,
    rope_of,
    same,
)
from harness.spec import ModelSpec

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


class Llama(Family):
    """One mapping for four model types; they differ in biases, windows and query/key norms.

    Paper: Touvron et al. 2023, arXiv:2302.13971; Jiang et al. 2023, arXiv:2310.06825
    """

    prefix = "model."
    ignored = ("rotary_emb.inv_freq",)

    def __init__(self, model_type: str) -> None:
        self.model_type, self.architecture = model_type, _ARCHITECTURES[model_type]

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
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
            max_length=config.get("max_position_embeddings", 2048),
            bias=bool(config.get("mlp_bias", False)),
            qkv_bias=True if self.model_type == "qwen2" else attention_bias,
            out_bias=False if self.model_type == "qwen2" else attention_bias,
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            init_std=config.get("initializer_range", 0.02),
            qk_norm=self.model_type == "qwen3",
        )
        attention = head_methods(heads, kv_heads)
        window = self._window(config)
        if window is not None:
            attention = {"method": "sliding_window", "window": window, "num_kv_heads": kv_heads}
        return spec, decoder(attention, rope_of(config, self), "rmsnorm", {"method": "swiglu"})

    def _window(self, config: Mapping[str, Any]) -> int | None:
        if self.model_type == "llama":
            return None
        if self.model_type != "mistral" and not config.get("use_sliding_window", False):
            return None
        kinds = set(config.get("layer_types") or ())
        if len(kinds) > 1:
            raise self.refuse(f"layers of several kinds ({', '.join(sorted(kinds))})")
        if kinds == {"full_attention"} and self.model_type != "mistral":
            return None
        window = config.get("sliding_window")
        return None if window is None else int(window)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        kinds = ("full", "multi_query", "grouped_query", "flash", "paged", "sliding_window")
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=kinds,
            position="rope",
            norm="rmsnorm",
            norm_position="pre",
            feed_forward="swiglu",
        )
        window = methods["attention"]["method"] == "sliding_window"
        self.expect(not window or self.model_type == "mistral", "a sliding window")
        self.expect(spec.qk_norm == (self.model_type == "qwen3"), f"qk_norm={spec.qk_norm}")
        self.expect(methods["position"].get("fraction", 1.0) == 1, "partly rotated heads")
        self._expect_shape(spec)
        qkv_bias, out_bias = _biases(spec)
        if self.model_type == "qwen2":
            self.expect(qkv_bias and not out_bias and not spec.bias, "these biases")
        elif self.model_type == "mistral":
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
            "rope_theta": methods["position"].get("base", 10000.0),
        }
        if self.model_type in ("llama", "qwen3"):
            config["attention_bias"] = qkv_bias
        if self.model_type == "llama":
            config["mlp_bias"] = spec.bias
        if self.model_type == "mistral":
            config["sliding_window"] = methods["attention"]["window"] if window else None
        return config

    def _expect_shape(self, spec: ModelSpec) -> None:
        self.expect(not spec.parallel_residual, "a parallel residual")
        self.expect(not spec.embedding_norm, "a norm on embeddings")
        self.expect(spec.attention_scale is None, "another attention scale")
        self.expect(spec.logit_scale == 1, "scaled logits")

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        qkv_bias, out_bias = _biases(spec)
        yield same("model.embed_tokens.weight", "model.embed_tokens.weight")
        for i in range(spec.num_layers):
            here = f"model.layers.{i}"
            for name in ("q_proj", "k_proj", "v_proj"):
                yield from layer_rules(f"{here}.self_attn.{name}", f"{here}.self_attn.{name}", bias=qkv_bias)
            yield from layer_rules(f"{here}.self_attn.o_proj", f"{here}.self_attn.o_proj", bias=out_bias)
            if spec.qk_norm:
                for name in ("q_norm", "k_norm"):
                    yield same(f"{here}.self_attn.{name}.weight", f"{here}.self_attn.{name}.weight")
            for name in ("gate_proj", "up_proj", "down_proj"):
                yield from layer_rules(f"{here}.mlp.{name}", f"{here}.mlp.{name}", bias=spec.bias)
            yield same(f"{here}.input_layernorm.weight", f"{here}.attn_norms.0.weight")
            yield same(f"{here}.post_attention_layernorm.weight", f"{here}.mlp_norms.0.weight")
        yield same("model.norm.weight", "model.norm.weight")
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def _biases(spec: ModelSpec) -> tuple[bool, bool]:
    qkv = spec.bias if spec.qkv_bias is None else spec.qkv_bias
    return qkv, spec.bias if spec.out_bias is None else spec.out_bias


def family(model_type: str) -> Family:
    """The family of one of the four model types."""
    return Llama(model_type)
