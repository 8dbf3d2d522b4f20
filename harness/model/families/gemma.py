"""Gemma 2 and 3: norms around each sublayer, windows in most layers, bounded scores or normed queries."""

from __future__ import annotations

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
    layers_of,
    same,
)
from harness.model.families.rope import METHODS, rope_config, rope_of
from harness.spec import ModelSpec

_ARCHITECTURES = {"gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
_LEFT_OUT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
}
"""What transformers takes for an option that a config leaves out."""
_LENGTH = {"gemma2": 8192, "gemma3_text": 131072}
"""Likewise, for `max_position_embeddings`."""
_PERIOD = {"gemma2": 2, "gemma3_text": 6}
"""Every how many layers one reads everything, where a config names no `layer_types`."""


class Gemma(Family):
    """Two mappings in one: Gemma 3 bounds no scores, norms queries and keys, and turns windows at a base of
    their own.

    Paper: Gemma team 2024, arXiv:2408.00118; 2025, arXiv:2503.19786
    """

    prefix = "model."
    ignored = ("rotary_emb.inv_freq",)
    expresses = frozenset({"layer_pattern", "logit_cap", "attention_cap", "embedding_scale", "norm_offset"})

    def __init__(self, model_type: str) -> None:
        self.model_type, self.architecture = model_type, _ARCHITECTURES[model_type]

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        config = {**_LEFT_OUT, "max_position_embeddings": _LENGTH[self.model_type], **config}
        if config["hidden_activation"] != "gelu_pytorch_tanh":
            raise self.refuse(f"hidden_activation={config['hidden_activation']}")
        if config.get("use_bidirectional_attention"):
            raise self.refuse("use_bidirectional_attention=true")
        second = self.model_type == "gemma2"
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        period = config.get("sliding_window_pattern", _PERIOD[self.model_type])
        layers = range(1, config["num_hidden_layers"] + 1)
        kinds = ["sliding_attention" if layer % period else "full_attention" for layer in layers]
        kinds = list(config.get("layer_types") or kinds)
        attention, pattern = layer_attention(config, head_methods(heads, kv_heads), kinds)
        position = self._positions(config, pattern, all_slide=set(kinds) == {"sliding_attention"})
        bias = bool(config.get("attention_bias", False))
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            ffn_dim=config["intermediate_size"],
            max_length=config["max_position_embeddings"],
            qkv_bias=bias,
            out_bias=bias,
            tie_embeddings=bool(config.get("tie_word_embeddings", True)),
            attention_scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
            # Gemma 3 states a bound of its scores that its attention does not read.
            attention_cap=config.get("attn_logit_softcapping", 50.0) if second else None,
            logit_cap=config.get("final_logit_softcapping", 30.0 if second else None),
            embedding_scale=config["hidden_size"] ** 0.5,
            norm_eps=config.get("rms_norm_eps", 1e-6),
            norm_offset=True,
            init_std=config.get("initializer_range", 0.02),
            qk_norm=not second,
            layer_pattern=pattern,
        )
        methods = decoder(attention, position, "rmsnorm", {"method": "geglu", "tanh": True})
        return spec, methods | {"norm_position": {"method": "sandwich"}}

    def _positions(
        self, config: Mapping[str, Any], pattern: list[dict[str, Any]], *, all_slide: bool
    ) -> dict[str, Any]:
        """The position choice of layers that read everything; those of windows go into the pattern."""
        if self.model_type == "gemma2":
            return rope_of(config, self)
        given = dict(config.get("rope_parameters") or {})
        if "full_attention" in given:
            everywhere, near = (
                rope_of({**config, "rope_scaling": None, "rope_parameters": given[kind]}, self)
                for kind in ("full_attention", "sliding_attention")
            )
        else:
            everywhere = rope_of({"rope_theta": 1e6, **config}, self)
            near = {
                "method": "rope",
                "base": float(config.get("rope_local_base_freq", 10000.0)),
                "fraction": 1.0,
            }
        for entry in pattern:
            if "attention" in entry:
                entry["position"] = near
        return near if all_slide else everywhere

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        second = self.model_type == "gemma2"
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=ATTENTIONS,
            position=METHODS,
            norm="rmsnorm",
            norm_position="sandwich",
            feed_forward="geglu",
        )
        self.expect_common(spec)
        self.expect(bool(methods["feed_forward"].get("tanh")), "the exact form of GELU")
        self.expect(spec.norm_offset, "norms whose weight does not count from 1")
        self.expect(abs(spec.embedding_scale - spec.dim**0.5) < 1e-6, "other embedding scales")
        self.expect(spec.qk_norm != second, f"qk_norm={spec.qk_norm}")
        self.expect(second or spec.attention_cap is None, "bounded scores")
        self.expect(not spec.parallel_residual and not spec.embedding_norm and not spec.bias, "this layout")
        self.expect(spec.logit_scale == 1 and spec.qkv_bias == spec.out_bias, "these scales or biases")
        kinds, window = self.expect_windows(spec, methods, also=() if second else ("position",))
        scale = spec.attention_scale or spec.head_dim**-0.5
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "num_key_value_heads": kv_heads_of(spec, methods["attention"]),
            "head_dim": spec.head_dim,
            "intermediate_size": spec.ffn_dim,
            "max_position_embeddings": spec.max_length,
            "query_pre_attn_scalar": _whole(scale**-2),
            "attn_logit_softcapping": spec.attention_cap,
            "final_logit_softcapping": spec.logit_cap,
            "rms_norm_eps": spec.norm_eps,
            "initializer_range": spec.init_std,
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": bool(spec.qkv_bias),
            "tie_word_embeddings": spec.tie_embeddings,
            "layer_types": kinds,
            "sliding_window": window or spec.max_length,
            **self._rope(spec, methods, kinds),
        }

    def _rope(self, spec: ModelSpec, methods: Methods, kinds: list[str]) -> dict[str, Any]:
        of_kind: dict[str, dict[str, Any]] = {}
        for kind, layer in zip(kinds, layers_of(spec, methods), strict=True):
            position = layer["position"]
            same = of_kind.setdefault(kind, position) == position
            self.expect(same, f"several positions in layers of {kind}")
            self.expect(position["method"] in METHODS, f"position={position['method']} in a layer")
            self.expect(position.get("fraction", 1.0) == 1, "partly rotated heads")
        if self.model_type == "gemma2":
            return rope_config(methods["position"])
        said = {
            kind: rope_config(of_kind.get(kind, methods["position"]))
            for kind in ("full_attention", "sliding_attention")
        }
        return {
            "rope_parameters": {
                kind: {
                    "rope_type": "default",
                    **one.get("rope_parameters", {"rope_theta": one["rope_theta"]}),
                }
                for kind, one in said.items()
            }
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        yield same("model.embed_tokens.weight", "model.embed_tokens.weight")
        for i in range(spec.num_layers):
            here = f"model.layers.{i}"
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield from layer_rules(
                    f"{here}.self_attn.{name}", f"{here}.self_attn.{name}", bias=bool(spec.qkv_bias)
                )
            if spec.qk_norm:
                for name in ("q_norm", "k_norm"):
                    yield same(f"{here}.self_attn.{name}.weight", f"{here}.self_attn.{name}.weight")
            for name in ("gate_proj", "up_proj", "down_proj"):
                yield same(f"{here}.mlp.{name}.weight", f"{here}.mlp.{name}.weight")
            yield same(f"{here}.input_layernorm.weight", f"{here}.attn_norms.0.weight")
            yield same(f"{here}.post_attention_layernorm.weight", f"{here}.attn_norms.1.weight")
            yield same(f"{here}.pre_feedforward_layernorm.weight", f"{here}.mlp_norms.0.weight")
            yield same(f"{here}.post_feedforward_layernorm.weight", f"{here}.mlp_norms.1.weight")
        yield same("model.norm.weight", "model.norm.weight")
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def _whole(number: float) -> int | float:
    """The integer that rounding lost, where it is one."""
    return round(number) if abs(number - round(number)) < 1e-6 * abs(number) else number


def family(model_type: str) -> Family:
    """The Gemma family of a model type."""
    return Gemma(model_type)
