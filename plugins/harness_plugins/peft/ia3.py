"""IA3: keys, values and hidden activations are rescaled, one factor each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from harness import ConfigError, Method, hookimpl, match_modules

from ._library import LinearPeft
from ._scope import Layer, LinearConfig, layer_size


class IA3(LinearPeft):
    """Learned factors, 1 at the start, on keys, values and the inputs of the last feed-forward layer.

    Paper: Liu et al. 2022, arXiv:2205.05638, section 3.3
    """

    name = "ia3"

    @dataclass(frozen=True, kw_only=True)
    class Config(LinearConfig):
        target_modules: list[str] = field(default_factory=lambda: ["k_proj", "v_proj", "down_proj"])
        """Linear layers whose outputs are scaled (inputs, for those that feedforward_modules names)."""
        feedforward_modules: list[str] = field(default_factory=lambda: ["down_proj"])
        """Those of target_modules whose inputs are scaled."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.target_modules:
                raise ConfigError("peft.target_modules is empty; name the layers that ia3 scales")
            if not set(self.feedforward_modules) <= set(self.target_modules):
                raise ConfigError(
                    f"peft.feedforward_modules={self.feedforward_modules} must be among "
                    f"peft.target_modules={self.target_modules}"
                )

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        from peft import IA3Config

        inputs = self.config.feedforward_modules
        scaled = match_modules(model, inputs, where="peft.feedforward_modules") if inputs else []
        targets = self.targets(model)
        return IA3Config(
            feedforward_modules=[name for name in scaled if name in targets], **self.scope(model)
        )

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """One factor for each scaled activation."""
        inputs = self.config.feedforward_modules
        return layer_size(layer)[0 if name in inputs or name.rpartition(".")[2] in inputs else 1]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [IA3]
