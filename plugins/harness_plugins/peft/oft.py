"""OFT: a weight's inputs are rotated, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from harness import ConfigError, Method, Problem, hookimpl

from ._library import LinearPeft
from ._scope import AdapterConfig, layer_size


class OFT(LinearPeft):
    """Orthogonal finetuning, W R with R block-diagonal and orthogonal: R_i = (I - Q_i)(I + Q_i)^-1, Q_i skew.

    Paper: Qiu et al. 2023, arXiv:2306.07280, eq. 4 and section 3.3 (Cayley transform, blocks, sharing)
    Differs: R acts on the inputs, as in the peft library and OFTv2 (arXiv:2506.19847), not on the outputs
    Raises: ConfigError where the blocks do not divide a layer's inputs
    """

    name = "oft"

    @dataclass(frozen=True, kw_only=True)
    class Config(AdapterConfig):
        only: ClassVar[str] = "oft_only"

        block_size: int = 32
        """Inputs that are rotated together; must divide every adapted layer's."""
        block_share: bool = False
        """Whether all blocks of a layer are rotated alike."""
        dropout: float = 0.0
        """Share of a layer's blocks that are left as they are in a training step."""
        neumann_terms: int = 0
        """Terms of the Neumann series that stands for the inverse, as in OFTv2: sooner, and R is orthogonal
        only nearly; 0 inverts."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.block_size < 2:
                raise ConfigError(f"peft.block_size={self.block_size} must be at least 2")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"peft.dropout={self.dropout} must be in [0, 1)")
            if self.neumann_terms < 0 or self.neumann_terms == 1:
                raise ConfigError(f"peft.neumann_terms={self.neumann_terms} must be 0, or at least 2")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        found = list(super().check(config, cell, meta_model))
        yield from found
        message = None if meta_model is None or found else cls(config).block_problem(meta_model)
        if message is not None:
            yield Problem(where="peft.block_size", message=message)

    def block_problem(self, model: nn.Module) -> str | None:
        """The first layer that the blocks do not divide."""
        layers, size = self.layers(model), self.config.block_size
        for name, layer in layers.items():
            if layer_size(layer)[0] % size:
                widths = {layer_size(each)[0] for each in layers.values()}
                fits = [n for n in range(2, min(widths) + 1) if not any(width % n for width in widths)]
                return (
                    f"{size} must divide the {layer_size(layer)[0]} inputs of layer {name}; use one of {fits}"
                )
        return None

    def apply(self, model: nn.Module) -> nn.Module:
        if (message := self.block_problem(model)) is not None:
            raise ConfigError(f"peft.block_size: {message}")
        return super().apply(model)

    def library_config(self, model: nn.Module) -> Any:
        from peft import OFTConfig

        return OFTConfig(
            r=0,
            oft_block_size=self.config.block_size,
            block_share=self.config.block_share,
            module_dropout=self.config.dropout,
            use_cayley_neumann=self.config.neumann_terms > 0,
            num_cayley_neumann_terms=self.config.neumann_terms or 5,
            **self.scope(model),
        )

    def layer_parameters(self, name: str, layer: nn.Module) -> int:
        """The upper triangle of each block."""
        size = self.config.block_size
        blocks = 1 if self.config.block_share else layer_size(layer)[0] // size
        return blocks * size * (size - 1) // 2


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [OFT]
