"""BLOOM: ALiBi, a norm on the embeddings, fused queries, keys, values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import Family, Methods, Rule, decoder, fused_block_rules, layer_rules, same
from harness.spec import ModelSpec


class Bloom(Family):
    """BLOOM checkpoints.

    Paper: BigScience 2022, arXiv:2211.05100
    """

    model_type = "bloom"
    architecture = "BloomForCausalLM"
    prefix = "transformer."

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        if config.get("apply_residual_connection_post_layernorm"):
            raise self.refuse("apply_residual_connection_post_layernorm=true")
        dim = config.get("hidden_size") or config["n_embed"]
        heads = config.get("n_head") or config["num_attention_heads"]
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=dim,
            num_layers=config.get("n_layer") or config["num_hidden_layers"],
            num_heads=heads,
            head_dim=dim // heads,
            ffn_dim=4 * dim,
            max_length=config.get("seq_length", 2048),
            bias=True,
            tie_embeddings=bool(config.get("tie_word_embeddings", True)),
            embedding_norm=True,
            norm_eps=config.get("layer_norm_epsilon", 1e-5),
            init_std=config.get("initializer_range", 0.02),
        )
        ffn = {"method": "gelu", "tanh": True}
        return spec, decoder({"method": "full"}, {"method": "alibi"}, "layernorm", ffn)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_common(spec)
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=("full", "flash", "paged"),
            position="alibi",
            norm="layernorm",
            norm_position="pre",
            feed_forward="gelu",
        )
        self.expect(bool(methods["feed_forward"].get("tanh")), "the exact form of GELU")
        self.expect(spec.bias and spec.qkv_bias is not False and spec.out_bias is not False, "no biases")
        self.expect(spec.norm_bias is not False and spec.embedding_norm, "no norm on the embeddings")
        self.expect(spec.head_dim * spec.num_heads == spec.dim, "heads narrower or wider than the model")
        self.expect(spec.ffn_dim == 4 * spec.dim, f"ffn_dim={spec.ffn_dim} other than four times dim")
        self.expect(not spec.parallel_residual and not spec.qk_norm, "this layout")
        self.expect(spec.attention_scale is None and spec.logit_scale == 1, "other scales")
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "n_layer": spec.num_layers,
            "n_head": spec.num_heads,
            "seq_length": spec.max_length,
            "layer_norm_epsilon": spec.norm_eps,
            "initializer_range": spec.init_std,
            "tie_word_embeddings": spec.tie_embeddings,
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        yield same("transformer.word_embeddings.weight", "model.embed_tokens.weight")
        yield from layer_rules("transformer.word_embeddings_layernorm", "model.embed_norm", bias=True)
        for i in range(spec.num_layers):
            yield from fused_block_rules(
                f"transformer.h.{i}",
                f"model.layers.{i}",
                attention="self_attention",
                num_heads=spec.num_heads,
                bias=True,
            )
        yield from layer_rules("transformer.ln_f", "model.norm", bias=True)
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def family(model_type: str) -> Family:
    """The BLOOM family."""
    return Bloom()
