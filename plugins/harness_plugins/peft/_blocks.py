"""Shared by the methods that rotate a weight's inputs block by block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from harness import ConfigError, Problem

from ._library import LinearPeft
from ._scope import DropoutConfig, layer_size


@dataclass(frozen=True, kw_only=True)
class BlockConfig(DropoutConfig):
    """Options of block-diagonal rotations."""

    block_size: int = 32
    """Inputs that are rotated together; must divide every adapted layer's."""
    dropout: float = 0.0
    """Share of a layer's blocks that are left as they are in a training step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 2:
            raise ConfigError(f"peft.block_size={self.block_size} must be at least 2")


class Blocks(LinearPeft):
    """Base of OFT and BOFT."""

    Config = BlockConfig
    config: BlockConfig

    def groups(self) -> int:
        """Blocks whose number must be a divisor of a layer's."""
        return 1

    def size_problem(self, model: nn.Module) -> Problem | None:
        """The first layer that the library cannot rotate, or that the blocks do not divide."""
        layers, size, groups = self.layers(model), self.config.block_size, self.groups()
        for name, layer in layers.items():
            if type(layer).__name__ == "Conv1D":
                return Problem(
                    where="peft.target_modules",
                    message=f"layer {name} is transformers' Conv1D, whose weight lies the other way, and the "
                    f"peft library's {self.name} takes linear layers alone; use peft=lora, dora or pissa, or "
                    "import the model (model.import=true), whose layers are linear then",
                )
            if layer_size(layer)[0] % (size * groups):
                widths = {layer_size(each)[0] for each in layers.values()}
                fits = [
                    n for n in range(2, min(widths) + 1) if not any(width % (n * groups) for width in widths)
                ]
                times = f" {groups} times" if groups > 1 else ""
                return Problem(
                    where="peft.block_size",
                    message=f"{size}{times} must divide the {layer_size(layer)[0]} inputs of layer {name}; "
                    f"use one of {fits}",
                )
        return None
