"""OPT: pre-LayerNorm, learned positions that start at row 2, ReLU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from harness.model.families.family import Family, Methods, Rule, decoder, layer_rules, same
from harness.spec import ModelSpec


class Opt(Family):
    """OPT checkpoints.

    Paper: Zhang et al. 2022, arXiv:2205.01068
    """

    model_type = "opt"
    architecture = "OPTForCausalLM"
    prefix = "model."
    expresses = frozenset({"embedding_dim"})

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        dim, heads = config["hidden_size"], config["num_attention_heads"]
        activation = config.get("activation_function", "relu")
        if activation not in ("relu", "gelu"):
            raise self.refuse(f"activation_function={activation}")
        width = config.get("word_embed_proj_dim") or dim
        if config.get("_remove_final_layer_norm") or not config.get("layer_norm_elementwise_affine", True):
            raise self.refuse("_remove_final_layer_norm or norms without weights")
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=dim,
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            head_dim=dim // heads,
            ffn_dim=config["ffn_dim"],
            max_length=config.get("max_position_embeddings", 2048),
            bias=bool(config.get("enable_bias", True)),
            norm_bias=True,
            tie_embeddings=bool(config.get("tie_word_embeddings", True)),
            embedding_dim=None if width == dim else width,
            init_std=config.get("init_std", 0.02),
        )
        methods = decoder({"method": "full"}, {"method": "learned"}, "layernorm", {"method": activation})
        if not config.get("do_layer_norm_before", True):
            methods["norm_position"] = {"method": "post"}
        return spec, methods

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_common(spec)
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=("full", "flash", "paged"),
            position="learned",
            norm="layernorm",
            norm_position=("pre", "post"),
            feed_forward=("relu", "gelu"),
        )
        norm_bias = spec.bias if spec.norm_bias is None else spec.norm_bias
        self.expect(spec.qkv_bias in (None, spec.bias) and spec.out_bias in (None, spec.bias), "these biases")
        self.expect(norm_bias, "norms without biases")
        self.expect(not methods["feed_forward"].get("tanh"), "the tanh form of GELU")
        self.expect(spec.head_dim * spec.num_heads == spec.dim, "heads narrower or wider than the model")
        self.expect(
            not spec.parallel_residual and not spec.embedding_norm and not spec.qk_norm, "this layout"
        )
        self.expect(spec.attention_scale is None and spec.logit_scale == 1, "other scales")
        self.expect(spec.norm_eps == 1e-5, f"norm_eps={spec.norm_eps}")
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "word_embed_proj_dim": spec.embedding_dim or spec.dim,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "ffn_dim": spec.ffn_dim,
            "max_position_embeddings": spec.max_length,
            "activation_function": methods["feed_forward"]["method"],
            "enable_bias": spec.bias,
            "do_layer_norm_before": methods["norm_position"]["method"] == "pre",
            "init_std": spec.init_std,
            "tie_word_embeddings": spec.tie_embeddings,
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        base = "model.decoder"
        yield same(f"{base}.embed_tokens.weight", "model.embed_tokens.weight")
        yield Rule(
            theirs=f"{base}.embed_positions.weight",
            ours=("model.position.table.weight",),
            split=lambda x: (x[2:],),
            join=lambda x: torch.cat((x.new_zeros(2, x.shape[1]), x)),
        )
        if spec.embedding_dim not in (None, spec.dim):
            yield same(f"{base}.project_in.weight", "model.embed_in.weight")
            yield same(f"{base}.project_out.weight", "model.embed_out.weight")
        for i in range(spec.num_layers):
            theirs, ours = f"{base}.layers.{i}", f"model.layers.{i}"
            for name in ("q_proj", "k_proj", "v_proj"):
                yield from layer_rules(
                    f"{theirs}.self_attn.{name}", f"{ours}.self_attn.{name}", bias=spec.bias
                )
            yield from layer_rules(f"{theirs}.self_attn.out_proj", f"{ours}.self_attn.o_proj", bias=spec.bias)
            yield from layer_rules(f"{theirs}.self_attn_layer_norm", f"{ours}.attn_norms.0", bias=True)
            yield from layer_rules(f"{theirs}.fc1", f"{ours}.mlp.up_proj", bias=spec.bias)
            yield from layer_rules(f"{theirs}.fc2", f"{ours}.mlp.down_proj", bias=spec.bias)
            yield from layer_rules(f"{theirs}.final_layer_norm", f"{ours}.mlp_norms.0", bias=True)
        if methods["norm_position"]["method"] == "pre":
            yield from layer_rules(f"{base}.final_layer_norm", "model.norm", bias=True)
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def family(model_type: str) -> Family:
    """The OPT family."""
    return Opt()
