"""T5: encoder-decoder, RMSNorm, relative position buckets, unscaled scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import Family, Methods, Rule, same
from harness.spec import ModelSpec

_FEED_FORWARD: dict[str, dict[str, Any]] = {
    "relu": {"method": "relu"},
    "gated-gelu": {"method": "geglu", "tanh": True},
    "gated-silu": {"method": "swiglu"},
}


class T5(Family):
    """T5 and T5 1.1 checkpoints.

    Paper: Raffel et al. 2019, arXiv:1910.10683
    """

    model_type = "t5"
    architecture = "T5ForConditionalGeneration"
    ignored = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    copies = dict.fromkeys(ignored, "shared.weight")

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        kind = config.get("feed_forward_proj", "relu")
        if kind not in _FEED_FORWARD:
            raise self.refuse(f"feed_forward_proj={kind}")
        tied = bool(config.get("tie_word_embeddings", True))
        scaled = bool(config.get("scale_decoder_outputs", tied))
        spec = ModelSpec(
            vocab_size=config["vocab_size"],
            dim=config["d_model"],
            num_layers=config.get("num_decoder_layers") or config["num_layers"],
            num_encoder_layers=config["num_layers"],
            num_heads=config["num_heads"],
            head_dim=config["d_kv"],
            ffn_dim=config["d_ff"],
            max_length=config.get("n_positions", 512),
            tie_embeddings=tied,
            attention_scale=1.0,
            logit_scale=config["d_model"] ** -0.5 if scaled else 1.0,
            norm_eps=config.get("layer_norm_epsilon", 1e-6),
        )
        return spec, {
            "architecture": {"method": "encoder_decoder"},
            "attention": {"method": "full"},
            "position": {
                "method": "relative_t5",
                "num_buckets": config.get("relative_attention_num_buckets", 32),
                "max_distance": config.get("relative_attention_max_distance", 128),
            },
            "norm": {"method": "rmsnorm"},
            "norm_position": {"method": "pre"},
            "feed_forward": dict(_FEED_FORWARD[kind]),
        }

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        self.expect_common(spec)
        self.expect_methods(
            methods,
            architecture="encoder_decoder",
            attention=("full", "flash", "paged"),
            position="relative_t5",
            norm="rmsnorm",
            norm_position="pre",
        )
        given = {key: value for key, value in methods["feed_forward"].items() if value is not False}
        kind = next((name for name, node in _FEED_FORWARD.items() if node == given), None)
        self.expect(kind is not None, f"feed_forward={given}")
        self.expect(not spec.bias and not spec.qkv_bias and not spec.out_bias, "biases")
        self.expect(spec.attention_scale == 1, "scaled scores")
        scaled = spec.logit_scale != 1
        self.expect(not scaled or abs(spec.logit_scale - spec.dim**-0.5) < 1e-9, "this output scale")
        position = methods["position"]
        return {
            "vocab_size": spec.vocab_size,
            "d_model": spec.dim,
            "num_layers": spec.num_encoder_layers,
            "num_decoder_layers": spec.num_layers,
            "num_heads": spec.num_heads,
            "d_kv": spec.head_dim,
            "d_ff": spec.ffn_dim,
            "n_positions": spec.max_length,
            "feed_forward_proj": kind,
            "layer_norm_epsilon": spec.norm_eps,
            "relative_attention_num_buckets": position.get("num_buckets", 32),
            "relative_attention_max_distance": position.get("max_distance", 128),
            "tie_word_embeddings": spec.tie_embeddings,
            "scale_decoder_outputs": scaled,
            "is_encoder_decoder": True,
            "decoder_start_token_id": 0,
        }

    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        gated = methods["feed_forward"]["method"] != "relu"
        yield same("shared.weight", "model.embed_tokens.weight")
        stacks = (
            ("encoder", "model.encoder", spec.num_encoder_layers),
            ("decoder", "model", spec.num_layers),
        )
        for theirs, ours, depth in stacks:
            yield same(
                f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                f"{ours}.position.table.weight",
            )
            yield same(f"{theirs}.final_layer_norm.weight", f"{ours}.norm.weight")
            for i in range(depth):
                yield from _block(
                    f"{theirs}.block.{i}.layer", f"{ours}.layers.{i}", theirs == "decoder", gated
                )
        if not spec.tie_embeddings:
            yield same("lm_head.weight", "lm_head.weight")


def _block(theirs: str, ours: str, cross: bool, gated: bool) -> Iterator[Rule]:
    sublayers = [("SelfAttention", "self_attn", "attn_norms")]
    if cross:
        sublayers.append(("EncDecAttention", "cross_attn", "cross_norms"))
    for index, (their_name, our_name, norms) in enumerate(sublayers):
        for name in "qkvo":
            yield same(
                f"{theirs}.{index}.{their_name}.{name}.weight", f"{ours}.{our_name}.{name}_proj.weight"
            )
        yield same(f"{theirs}.{index}.layer_norm.weight", f"{ours}.{norms}.0.weight")
    last = len(sublayers)
    layers = {"wi_0": "gate_proj", "wi_1": "up_proj"} if gated else {"wi": "up_proj"}
    for their_name, our_name in {**layers, "wo": "down_proj"}.items():
        yield same(f"{theirs}.{last}.DenseReluDense.{their_name}.weight", f"{ours}.mlp.{our_name}.weight")
    yield same(f"{theirs}.{last}.layer_norm.weight", f"{ours}.mlp_norms.0.weight")


def family(model_type: str) -> Family:
    """The T5 family."""
    return T5()
