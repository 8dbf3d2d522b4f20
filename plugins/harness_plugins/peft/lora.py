"""LoRA: a low-rank update beside each linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import Method, hookimpl

from ._lora import LoRAConfig, LoRAFamily


class LoRA(LoRAFamily):
    """Low-rank adaptation, W + (alpha / r) B A with B = 0 at the start.

    Paper: Hu et al. 2021, arXiv:2106.09685
    """

    name = "lora"
    adapts_embeddings = True
    adapts_experts = True

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        """Rank, scale, dropout and targets."""

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LoRA]
