"""GPT-2: pre-LayerNorm, learned positions, GELU; transposed layers, queries, keys and values fused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.model.families.family import Family, Methods, Rule, decoder, layer_rules, same
from harness.spec import ModelSpec


class Gpt2(Family):
    """GPT-2 checkpoints.

    Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"
    """

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    prefix = "transformer."
    ignored = ("attn.bias", "attn.masked_bias")

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        activation = config.get("activation_function", "gelu_new")
        if activation not in ("gelu_new", "gelu", "gelu_pytorch_tanh", "relu"):
            raise self.refuse(f"activation_function={activation}")
        if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
            raise self.refuse("attention scaled by layer, or not at all")
        dim, heads = config["n_embd"], config["n_head"]
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=dim,
            num_layers=config["n_layer"],
            num_heads=heads,
            head_dim=dim // heads,
            ffn_dim=config.get("n_inner") or 4 * dim,
            max_length=config.get("n_positions", 1024),
            bias=True,
            tie_embeddings=bool(config.get("tie_word_embeddings", True)),
            norm_eps=config.get("layer_norm_epsilon", 1e-5),
            init_std=config.get("initializer_range", 0.02),
        )
        ffn: dict[str, Any] = {"method": "relu"}
        if activation != "relu":
            ffn = {"method": "gelu", "tanh": activation != "gelu"}
        return spec, decoder({"method": "full"}, {"method": "learned"}, "layernorm", ffn)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_common(spec)
        self.expect_methods(
            methods,
            architecture="causal_decoder",
            attention=("full", "flash", "paged"),
            position="learned",
            norm="layernorm",
            norm_position="pre",
            feed_forward=("gelu", "relu"),
        )
        self.expect(spec.bias and spec.qkv_bias is not False and spec.out_bias is not False, "no biases")
        self.expect(spec.norm_bias is not False, "norms without biases")
        self.expect(spec.head_dim * spec.num_heads == spec.dim, "heads narrower or wider than the model")
        self.expect(
            not spec.parallel_residual and not spec.embedding_norm and not spec.qk_norm, "this layout"
        )
        self.expect(spec.attention_scale is None and spec.logit_scale == 1, "other scales")
        ffn = methods["feed_forward"]
        activation = "relu" if ffn["method"] == "relu" else ("gelu_new" if ffn.get("tanh") else "gelu")
        return {
            "vocab_size": spec.vocab_size,
            "n_embd": spec.dim,
            "n_layer": spec.num_layers,
            "n_head": spec.num_heads,
            "n_inner": spec.ffn_dim,
            "n_positions": spec.max_length,
            "layer_norm_epsilon": spec.norm_eps,
            "initializer_range": spec.init_std,
            "activation_function": activation,
            "tie_word_embeddings": spec.tie_embeddings,
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        yield same("transformer.wte.weight", "model.embed_tokens.weight")
        yield same("transformer.wpe.weight", "model.position.table.weight")
        for i in range(spec.num_layers):
            theirs, ours = f"transformer.h.{i}", f"model.layers.{i}"
            yield from layer_rules(f"{theirs}.ln_1", f"{ours}.attn_norms.0", bias=True)
            yield from layer_rules(f"{theirs}.ln_2", f"{ours}.mlp_norms.0", bias=True)
            names = tuple(f"{ours}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj"))
            yield from _transposed(f"{theirs}.attn.c_attn", names)
            yield from _transposed(f"{theirs}.attn.c_proj", (f"{ours}.self_attn.o_proj",))
            yield from _transposed(f"{theirs}.mlp.c_fc", (f"{ours}.mlp.up_proj",))
            yield from _transposed(f"{theirs}.mlp.c_proj", (f"{ours}.mlp.down_proj",))
        yield from layer_rules("transformer.ln_f", "model.norm", bias=True)
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def _transposed(theirs: str, ours: tuple[str, ...]) -> Iterator[Rule]:
    """A Conv1D: weight transposed, several layers side by side in its columns."""

    def split(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.t().contiguous() for part in x.chunk(len(ours), dim=1))

    def join(*parts: Tensor) -> Tensor:
        return torch.cat([part.t() for part in parts], dim=1).contiguous()

    weights = tuple(f"{name}.weight" for name in ours)
    yield Rule(theirs=f"{theirs}.weight", ours=weights, split=split, join=join)
    yield Rule(
        theirs=f"{theirs}.bias",
        ours=tuple(f"{name}.bias" for name in ours),
        split=lambda x: x.chunk(len(ours)),
        join=lambda *parts: torch.cat(parts),
    )


def family(model_type: str) -> Family:
    """The GPT-2 family."""
    return Gpt2()
