"""DoRA: LoRA on the direction of a weight, with a magnitude for each output of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import Kept, Method, hookimpl

from ._lora import LoRAConfig, LoRAFamily
from ._scope import Layer, layer_size


class DoRA(LoRAFamily):
    """Weight-decomposed low-rank adaptation, m (W + B A) / ||W + B A|| row by row.

    Paper: Liu et al. 2024, arXiv:2402.09353, eq. 5
    """

    name = "dora"
    adapts_embeddings = True
    kept = Kept(outputs=2)  # scaled: what a layer returns, and what its adapter does

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        """Rank, scale, dropout and targets."""

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model, use_dora=True)

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """LoRA's, and a magnitude for each output."""
        return super().layer_parameters(name, layer) + layer_size(layer)[1]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DoRA]
