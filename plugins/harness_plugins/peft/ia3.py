"""IA3: keys, values and hidden activations are rescaled, one factor each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from harness import ConfigError, Method, Peft, hookimpl, match_modules

from ._library import LibraryPeft, layer_size


class IA3(LibraryPeft):
    """Learned factors, 1 at the start, on keys, values and the inputs of the last feed-forward layer.

    Paper: Liu et al. 2022, arXiv:2205.05638, section 3.3
    """

    name = "ia3"
    mergeable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Peft.Config):
        target_modules: list[str] = field(default_factory=lambda: ["k_proj", "v_proj", "down_proj"])
        """Linear layers whose outputs are scaled (inputs, for those that feedforward_modules names)."""
        feedforward_modules: list[str] = field(default_factory=lambda: ["down_proj"])
        """Those of target_modules whose inputs are scaled."""

        def __post_init__(self) -> None:
            if not set(self.feedforward_modules) <= set(self.target_modules):
                raise ConfigError(
                    f"peft.feedforward_modules={self.feedforward_modules} must be among "
                    f"peft.target_modules={self.target_modules}"
                )

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        from peft import IA3Config

        return IA3Config(
            target_modules=self.targets(model),
            feedforward_modules=self.matched(model, self.config.feedforward_modules),
            task_type="CAUSAL_LM",
        )

    def targets(self, model: nn.Module) -> list[str]:
        return match_modules(model, self.config.target_modules, where="peft.target_modules")

    def matched(self, model: nn.Module, names: list[str]) -> list[str]:
        """Full names of the modules called so."""
        return [n for n, _ in model.named_modules() if n in names or n.rpartition(".")[2] in names]

    def trainable_parameters(self, model: nn.Module) -> int:
        """One factor for each scaled activation."""
        inputs = set(self.matched(model, self.config.feedforward_modules))
        return sum(
            layer_size(model.get_submodule(name))[0 if name in inputs else 1]
            for name in self.matched(model, self.config.target_modules)
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [IA3]
