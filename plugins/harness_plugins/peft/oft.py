"""OFT: a weight's inputs are rotated, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from harness import ConfigError, Method, hookimpl

from ._blocks import BlockConfig, Blocks
from ._scope import Layer, layer_size


class OFT(Blocks):
    """Orthogonal finetuning, W R with R block-diagonal and orthogonal: R_i = (I - Q_i)(I + Q_i)^-1, Q_i skew.

    Paper: Qiu et al. 2023, arXiv:2306.07280, eq. 4 and section 3.3 (Cayley transform, blocks, sharing)
    Differs: R acts on the inputs, as in the peft library and OFTv2 (arXiv:2506.19847), not on the outputs
    Raises: ConfigError where the blocks do not divide a layer's inputs
    """

    name = "oft"

    @dataclass(frozen=True, kw_only=True)
    class Config(BlockConfig):
        only: ClassVar[str] = "oft_only"

        block_share: bool = False
        """Whether all blocks of a layer are rotated alike."""
        neumann_terms: int | None = None
        """Terms of the Neumann series that stands for the inverse, as in OFTv2: sooner, and R is orthogonal
        only nearly; null inverts."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.neumann_terms is not None and self.neumann_terms < 2:
                raise ConfigError(f"peft.neumann_terms={self.neumann_terms} must be null, or at least 2")

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        from peft import OFTConfig

        return OFTConfig(
            r=0,
            oft_block_size=self.config.block_size,
            block_share=self.config.block_share,
            module_dropout=self.config.dropout,
            use_cayley_neumann=self.config.neumann_terms is not None,
            num_cayley_neumann_terms=self.config.neumann_terms or 5,
            **self.scope(model),
        )

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """The upper triangle of each block."""
        size = self.config.block_size
        blocks = 1 if self.config.block_share else layer_size(layer)[0] // size
        return blocks * size * (size - 1) // 2


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [OFT]
