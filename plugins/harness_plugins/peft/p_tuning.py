"""P-tuning: a soft prompt that a small network computes."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness import Method, hookimpl

from ._virtual import EncodedConfig, VirtualTokens, width


class PTuning(VirtualTokens):
    """Soft prompt behind a three-layer MLP.

    Paper: Liu et al. 2021, arXiv:2103.10385
    """

    name = "p_tuning"
    splittable = True

    Config = EncodedConfig
    config: EncodedConfig

    def library_config(self, model: nn.Module) -> Any:
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            encoder_hidden_size=self.config.hidden,
            encoder_reparameterization_type="MLP",
            **self.embedded(model),
        )

    def trainable_parameters(self, model: nn.Module) -> int:
        """Embeddings and the MLP d -> h -> h -> d."""
        d, h = width(model), self.config.hidden
        return self.config.num_virtual_tokens * d + (d * h + h) + (h * h + h) + (h * d + d)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PTuning]
