"""Mixtral: Mistral with a mixture of SwiGLU experts in place of each feed-forward layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.families.family import Family, Methods, Rule, same
from harness.model.families.llama import Llama
from harness.spec import ModelSpec


class Mixtral(Llama):
    """Mixtral checkpoints.

    Paper: Jiang et al. 2024, arXiv:2401.04088
    """

    feed_forward_method = "moe_top_k"

    def feed_forward(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if config.get("router_jitter_noise"):
            raise self.refuse(f"router_jitter_noise={config['router_jitter_noise']}")
        return {
            "method": "moe_top_k",
            "num_experts": config.get("num_local_experts", 8),
            "experts_per_token": config.get("num_experts_per_tok", 2),
            "balance_weight": config.get("router_aux_loss_coef", 0.001),
        }

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        ffn = methods["feed_forward"]
        return super().write_config(spec, methods) | {
            "num_local_experts": ffn["num_experts"],
            "num_experts_per_tok": ffn["experts_per_token"],
            "router_aux_loss_coef": ffn["balance_weight"],
        }

    def feed_forward_rules(self, here: str, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        theirs = f"{here.removesuffix('.mlp')}.block_sparse_moe"
        yield same(f"{theirs}.gate.weight", f"{here}.router.weight")
        layers = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
        for expert in range(methods["feed_forward"]["num_experts"]):
            for their_name, our_name in layers.items():
                yield same(
                    f"{theirs}.experts.{expert}.{their_name}.weight",
                    f"{here}.experts.{expert}.{our_name}.weight",
                )


def family(model_type: str) -> Family:
    """The Mixtral family."""
    return Mixtral(model_type)
