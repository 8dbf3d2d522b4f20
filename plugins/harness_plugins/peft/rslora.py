"""rsLoRA: LoRA whose scale keeps its size as the rank grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import Method, hookimpl

from ._lora import LoRAConfig, LoRAFamily


class RsLoRA(LoRAFamily):
    """Rank-stabilized LoRA, W + (alpha / sqrt(r)) B A with B = 0 at the start.

    Paper: Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2
    """

    name = "rslora"
    adapts_embeddings = True
    adapts_experts = True

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        alpha: float = 16.0
        """The update is scaled by alpha / sqrt(rank)."""

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model, use_rslora=True)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RsLoRA]
