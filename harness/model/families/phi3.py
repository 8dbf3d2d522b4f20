"""Phi-3: Llama with its queries, keys and values in one layer, and its gate and up projection in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.model.families.family import Family, Methods, Rule, kv_heads_of
from harness.model.families.llama import Llama
from harness.spec import ModelSpec


class Phi3(Llama):
    """Phi-3 and Phi-4 checkpoints.

    Paper: Abdin et al. 2024, arXiv:2404.14219
    """

    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        for name in ("resid_pdrop", "embd_pdrop"):
            if config.get(name):
                raise self.refuse(f"{name}={config[name]}")
        return super().read_config(config)

    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        config = super().write_config(spec, methods)
        position = methods["position"]
        kind = position["method"]
        self.expect(kind in ("rope", "rope_longrope"), f"position={kind}")
        self.expect(spec.head_dim * spec.num_heads == spec.dim, "heads narrower or wider than the model")
        return config | {
            "partial_rotary_factor": position.get("fraction", 1.0),
            "original_max_position_embeddings": position.get("original_length", spec.max_length),
        }

    def projection_rules(self, here: str, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        heads = (spec.num_heads, *[kv_heads_of(spec, methods["attention"])] * 2)
        names = [f"{here}.{name}.weight" for name in ("q_proj", "k_proj", "v_proj")]
        yield stacked(f"{here}.qkv_proj.weight", names, [count * spec.head_dim for count in heads])

    def feed_forward_rules(self, here: str, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        names = [f"{here}.{name}.weight" for name in ("gate_proj", "up_proj")]
        yield stacked(f"{here}.gate_up_proj.weight", names, [spec.ffn_dim] * 2)
        yield Rule(theirs=f"{here}.down_proj.weight", ours=(f"{here}.down_proj.weight",))


def stacked(theirs: str, ours: list[str], rows: list[int]) -> Rule:
    """Several layers of ours as rows of one of theirs, one after the other."""

    def split(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.split(x, rows))

    def join(*parts: Tensor) -> Tensor:
        return torch.cat(parts)

    return Rule(theirs=theirs, ours=tuple(ours), split=split, join=join)


def family(model_type: str) -> Family:
    """The Phi-3 family."""
    return Phi3(model_type)
