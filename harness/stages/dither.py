"""Dither: a checkpoint that lies on the grid of an earlier quantization is moved off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.hookspecs import hookimpl
from harness.rng import Purpose
from harness.stage import Stage, Work

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from harness.compose import Cell


class Dither(Stage):
    """Adds uniform noise to the linear layers, in steps of each group's min-max grid.

    Weights that came out of a quantized file have few values a group: rounding to that very grid costs
    nothing, which flatters a quantizer that happens to use it. Noise of half a step (`dither.steps=0.5`, the
    error that rounding had made) hides the grid, once for all cells that share the checkpoint.

    Raises: ConfigError where a group does not divide a layer's inputs
    """

    name = "dither"
    after = ("pretrain",)
    before = ("extend",)
    needs = ("model",)
    produces = "model"
    trial = ("dither.steps=0.5",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        steps: float = 0.0
        """Largest noise, in steps of a group's grid; 0 = the stage is left out."""
        group_size: int = 32
        """Weights of a group along the inputs, as the file had them (32 in GGUF's Q4_0, Q4_1 and Q8_0)."""
        levels: int = 16
        """Values of a group's grid: 2^bits."""

        def __post_init__(self) -> None:
            if self.steps < 0:
                raise ConfigError(f"dither.steps={self.steps} is negative; 0.5 hides a grid, 0 leaves it")
            if self.group_size < 1:
                raise ConfigError(f"dither.group_size={self.group_size} must be at least 1")
            if self.levels < 2:
                raise ConfigError(f"dither.levels={self.levels} must be at least 2")

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return bool(cell.stage_config(cls.name).steps)

    def run(self, work: Work) -> dict[str, Any]:
        import torch

        from harness.model.artifact import Delta, open_dense
        from harness.model.snapshot import prove, snapshot
        from harness.ops.packed_linear import linear_layers, weight_matrix

        loaded = open_dense(work, what="dither")
        before = snapshot(loaded.model)
        generator = torch.Generator().manual_seed(work.stream(Purpose.init))
        changed, total = 0.0, 0.0
        layers = linear_layers(loaded.model)
        for name, layer in sorted(layers.items()):
            weight_OI = weight_matrix(layer)
            if weight_OI.shape[1] % work.config.group_size:
                raise ConfigError(
                    f"dither.group_size={work.config.group_size} does not divide the "
                    f"{weight_OI.shape[1]} inputs of {name}"
                )
            noise_OI = grid_noise(weight_OI.float().cpu(), config=work.config, generator=generator)
            weight_OI += noise_OI.to(weight_OI)  # a view of the parameter
            changed += float(noise_OI.square().sum())
            total += float(weight_OI.float().square().sum())
        effects = prove(before, snapshot(loaded.model), what=f"dither.steps={work.config.steps}")
        loaded.save(work.out, delta=Delta.weights)
        return {
            "layers": len(layers),
            "relative_noise": (changed / total) ** 0.5,
            "effects": {"dither": effects},
        }


def grid_noise(weight_OI: Tensor, *, config: Dither.Config, generator: Generator) -> Tensor:
    """Uniform noise within +- `steps` steps of each group's min-max grid.

    Shapes: out x in; groups run along the inputs
    """
    import torch

    groups = weight_OI.reshape(weight_OI.shape[0], -1, config.group_size)
    step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / (config.levels - 1)
    noise = (2 * torch.rand(groups.shape, generator=generator) - 1) * config.steps * step
    return noise.reshape(weight_OI.shape)


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Dither]
