"""Prompt tuning: trained vectors before the embedded input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import Method, hookimpl

from ._virtual import VirtualConfig, VirtualTokens, width


class PromptTuning(VirtualTokens):
    """Soft prompt of free embedding vectors.

    Paper: Lester et al. 2021, arXiv:2104.08691
    """

    name = "prompt_tuning"
    splittable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(VirtualConfig):
        """Length of the prompt."""

    def library_config(self, model: nn.Module) -> Any:
        from peft import PromptTuningConfig

        return PromptTuningConfig(**self.embedded(model))

    def trainable_parameters(self, model: nn.Module) -> int:
        """One vector of the model's width for each virtual token."""
        return self.config.num_virtual_tokens * width(model)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PromptTuning]
