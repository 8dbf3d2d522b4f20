"""LoRA+: LoRA whose two matrices learn at different rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import ConfigError, Method, hookimpl

from ._lora import LoRAConfig, LoRAFamily


class LoRAPlus(LoRAFamily):
    """LoRA with a learning rate for B that is a multiple of A's.

    Paper: Hayou et al. 2024, arXiv:2402.12354, section 4
    Differs: weight decay is the optimizer's (the peft library's optimizer has none), and is multiplied by the
    rate as that of every parameter is; as there, biases learn at B's rate
    """

    name = "lora_plus"
    adapts_experts = True

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        rate_ratio: float = 16.0
        """Learning rate of B over that of A, which is the stage's; at least 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.rate_ratio >= 1:
                raise ConfigError(f"peft.rate_ratio={self.rate_ratio} must be at least 1; 1 is peft=lora")

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model)

    def rate(self, name: str, parameter: nn.Parameter) -> float:
        return self.config.rate_ratio if ".lora_B." in name or parameter.ndim == 1 else 1.0


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LoRAPlus]
