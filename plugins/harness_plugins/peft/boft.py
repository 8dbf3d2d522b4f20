"""BOFT: a weight's inputs are rotated by a product of sparse rotations, arranged as a butterfly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, hookimpl

from ._blocks import BlockConfig, Blocks
from ._scope import Layer, layer_size

MAX_FACTORS = 32
"""2^31 blocks would divide the inputs of no layer."""


class BOFT(Blocks):
    """Butterfly orthogonal finetuning, W R with R a product of permuted block-diagonal Cayley rotations.

    The blocks of each further factor mix inputs twice as far apart, so that few parameters make a dense R;
    every output is scaled too.
    Paper: Liu et al. 2023, arXiv:2311.06243, eq. 4 and section 4
    State: the library keeps each layer's permutations dense, butterfly_factors x in x in
    Differs: R acts on the inputs, and outputs have a trained scale, as in the peft library. Where its CUDA
    extension is not compiled, that library has one factor, whatever it is asked; here all are computed
    Raises: ConfigError where the blocks do not divide a layer's inputs
    """

    name = "boft"

    @dataclass(frozen=True, kw_only=True)
    class Config(BlockConfig):
        only: ClassVar[str] = "boft_only"

        block_size: int = 8
        """Inputs that one factor rotates together; 2^(butterfly_factors - 1) times as many must divide every
        adapted layer's."""
        butterfly_factors: int = 2
        """Factors of R; with 1 it is OFT, with scaled outputs."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.butterfly_factors <= MAX_FACTORS:
                raise ConfigError(
                    f"peft.butterfly_factors={self.butterfly_factors} must lie between 1 and {MAX_FACTORS}"
                )
            if self.butterfly_factors > 1 and self.block_size % 2:
                raise ConfigError(f"peft.block_size={self.block_size} must be even; or butterfly_factors=1")

    config: Config

    def groups(self) -> int:
        return int(2 ** (self.config.butterfly_factors - 1))

    def apply(self, model: nn.Module) -> nn.Module:
        provide_kernels()
        return super().apply(model)

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        provide_kernels()
        return super().load(model, directory, trainable=trainable)

    def library_config(self, model: nn.Module) -> Any:
        from peft import BOFTConfig

        return BOFTConfig(
            boft_block_size=self.config.block_size,
            boft_n_butterfly_factor=self.config.butterfly_factors,
            boft_dropout=self.config.dropout,
            **self.scope(model),
        )

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """Each factor's blocks, stored whole, and a scale for each output."""
        inputs, outputs = layer_size(layer)
        return self.config.butterfly_factors * inputs * self.config.block_size + outputs


class BlockDiagonal:
    """What peft's CUDA extension computes, by torch.

    Shapes: factors x blocks x size x size <-> factors x in x in
    """

    @staticmethod
    def forward(blocks_FNSS: Tensor) -> list[Tensor]:
        """Block-diagonal matrices."""
        return [torch.stack([torch.block_diag(*blocks) for blocks in blocks_FNSS])]

    @staticmethod
    def backward(gradient_FII: Tensor, blocks_FNSS: Tensor) -> list[Tensor]:
        """The blocks on the diagonal."""
        count, size = blocks_FNSS.shape[1:3]
        parts = gradient_FII.unflatten(1, (count, size)).unflatten(3, (count, size))
        return [parts.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).contiguous()]


def provide_kernels() -> None:
    """Stand in for the library's extension, without which it drops factors; where it is there, it stays."""
    from peft.tuners.boft import layer

    if layer._FBD_CUDA is None:
        layer._FBD_CUDA = BlockDiagonal


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BOFT]
