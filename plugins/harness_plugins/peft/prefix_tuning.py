"""Prefix tuning: trained keys and values before those of every layer."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness import Method, hookimpl

from ._virtual import EncodedConfig, VirtualTokens


class PrefixTuning(VirtualTokens):
    """Keys and values of a prefix in every layer, computed by an MLP while training.

    Paper: Li and Liang 2021, arXiv:2101.00190, section 4.3
    """

    name = "prefix_tuning"

    Config = EncodedConfig
    config: EncodedConfig

    def library_config(self, model: nn.Module) -> Any:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            num_virtual_tokens=self.config.num_virtual_tokens,
            encoder_hidden_size=self.config.hidden,
            prefix_projection=True,
            task_type="CAUSAL_LM",
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PrefixTuning]
