"""DoRA: LoRA on the direction of a weight, with a magnitude for each output of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import Kept, Method, hookimpl

from ._library import LowRank, LowRankConfig, layer_size


class DoRA(LowRank):
    """Weight-decomposed low-rank adaptation, m (W + B A) / ||W + B A|| row by row.

    Paper: Liu et al. 2024, arXiv:2402.09353, eq. 5
    """

    name = "dora"
    adapts_embeddings = True
    kept = Kept(outputs=2)  # scaled: what a layer returns, and what its adapter does

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        """Rank, scale, dropout and targets."""

    def library_config(self, model: nn.Module) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=self.targets(model),
            use_dora=True,
            task_type="CAUSAL_LM",
        )

    def trainable_parameters(self, model: nn.Module) -> int:
        """LoRA's, and a magnitude for each output."""
        outputs = sum(layer_size(m)[1] for m in self.layers(model).values())
        return super().trainable_parameters(model) + outputs


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DoRA]
