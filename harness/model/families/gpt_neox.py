"""GPT-NeoX (Pythia): parallel residual, partly rotated heads, fused queries, keys, values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import (
    Family,
    Methods,
    Rule,
    decoder,
    fused_block_rules,
    layer_rules,
    same,
)
from harness.model.families.rope import METHODS, rope_config, rope_of
from harness.spec import ModelSpec


class GptNeox(Family):
    """GPT-NeoX and Pythia checkpoints.

    Paper: Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373
    """

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    prefix = "gpt_neox."
    ignored = ("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq")

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        activation = config.get("hidden_act", "gelu")
        if activation not in ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"):
            raise self.refuse(f"hidden_act={activation}")
        dim, heads = config["hidden_size"], config["num_attention_heads"]
        bias = bool(config.get("attention_bias", True))
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=dim,
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            head_dim=dim // heads,
            ffn_dim=config["intermediate_size"],
            max_length=config.get("max_position_embeddings", 2048),
            bias=True,
            qkv_bias=bias,
            out_bias=bias,
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            parallel_residual=bool(config.get("use_parallel_residual", True)),
            norm_eps=config.get("layer_norm_eps", 1e-5),
            init_std=config.get("initializer_range", 0.02),
        )
        ffn: dict[str, Any] = {"method": "relu"}
        if activation != "relu":
            ffn = {"method": "gelu", "tanh": activation != "gelu"}
        position = rope_of({"rotary_pct": 0.25, "max_position_embeddings": 2048, **config}, self)
        return spec, decoder({"method": "full"}, position, "layernorm", ffn)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_common(spec)
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=("full", "flash", "paged"),
            position=METHODS,
            norm="layernorm",
            norm_position="pre",
            feed_forward=("gelu", "relu"),
        )
        qkv = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        out = spec.bias if spec.out_bias is None else spec.out_bias
        self.expect(spec.bias and qkv == out and spec.norm_bias is not False, "these biases")
        self.expect(spec.head_dim * spec.num_heads == spec.dim, "heads narrower or wider than the model")
        self.expect(not spec.embedding_norm and not spec.qk_norm, "this layout")
        self.expect(spec.attention_scale is None and spec.logit_scale == 1, "other scales")
        ffn = methods["feed_forward"]
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "intermediate_size": spec.ffn_dim,
            "max_position_embeddings": spec.max_length,
            "layer_norm_eps": spec.norm_eps,
            "initializer_range": spec.init_std,
            "hidden_act": "relu" if ffn["method"] == "relu" else ("gelu_new" if ffn.get("tanh") else "gelu"),
            "attention_bias": qkv,
            "use_parallel_residual": spec.parallel_residual,
            "rotary_pct": methods["position"].get("fraction", 1.0),
            "rotary_emb_base": methods["position"].get("base", 10000.0),
            **rope_config(methods["position"]),
            "tie_word_embeddings": spec.tie_embeddings,
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        bias = spec.bias if spec.qkv_bias is None else spec.qkv_bias
        yield same("gpt_neox.embed_in.weight", "model.embed_tokens.weight")
        for i in range(spec.num_layers):
            yield from fused_block_rules(
                f"gpt_neox.layers.{i}",
                f"model.layers.{i}",
                attention="attention",
                num_heads=spec.num_heads,
                bias=bias,
            )
        yield from layer_rules("gpt_neox.final_layer_norm", "model.norm", bias=True)
        if not spec.tie_embeddings:
            yield same("embed_out.weight", "lm_head.weight")


def family(model_type: str) -> Family:
    """The GPT-NeoX family."""
    return GptNeox()
