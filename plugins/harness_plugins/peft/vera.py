"""VeRA: random matrices that all layers share, and two trained vectors for each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from harness import ConfigError, Kept, Method, hookimpl

from ._library import LinearPeft
from ._scope import DropoutConfig, Layer, layer_size


class VeRA(LinearPeft):
    """Vector-based random matrix adaptation, W + diag(b) B diag(d) A with B and A frozen and shared.

    Layers of other sizes than the largest take its first rows and columns.
    Paper: Kopiczko et al. 2023, arXiv:2310.11454, eq. 2
    """

    name = "vera"
    kept = Kept(outputs=1)  # b multiplies what B gives

    @dataclass(frozen=True, kw_only=True)
    class Config(DropoutConfig):
        only: ClassVar[str] = "vera_only"

        rank: int = 256
        """Rows of the shared A, columns of B; may be above a layer's size."""
        initial_d: float = 0.1
        """Value of d at the start; b starts at zero."""
        projection_seed: int = 0
        """Seed of A and B, which are the same for every seed of a sweep; both are saved with the adapter."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.rank < 1:
                raise ConfigError(f"peft.rank={self.rank} must be at least 1")
            if self.initial_d == 0:
                raise ConfigError("peft.initial_d=0 would leave both vectors without a gradient; use 0.1")

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        from peft import VeraConfig

        return VeraConfig(
            r=self.config.rank,
            d_initial=self.config.initial_d,
            vera_dropout=self.config.dropout,
            projection_prng_key=self.config.projection_seed,
            save_projection=True,
            **self.scope(model),
        )

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """One number for each row of A and for each output."""
        return self.config.rank + layer_size(layer)[1]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [VeRA]
