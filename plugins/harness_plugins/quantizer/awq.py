"""AWQ: weights that meet large activations get a finer grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, Method, PackedLinear, hookimpl, weight_matrix

from ._gptq import output_error
from ._statistics import Inputs, quantize_with_inputs
from ._uniform import Grid, UniformConfig, UniformLinear, UniformQuantizer, make_grid


class ScaledLinear(UniformLinear):
    """A uniform layer whose weight was multiplied by a factor for each input.

    Shapes: input_scale in, float16
    """

    input_scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, config: UniformConfig
    ) -> None:
        super().__init__(in_features, out_features, bias, config)
        self.register_buffer("input_scale", torch.ones(in_features, dtype=torch.float16))

    def dequantize(self) -> Tensor:
        """(code - zero) * scale / input_scale, float32."""
        return super().dequantize() / self.input_scale.float()


class AWQ(UniformQuantizer):
    """Activation-aware scaling s_j = mean|X_j|^alpha, alpha searched layer by layer; then rounding.

    Paper: Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5
    Differs: s is kept with each layer, not folded into the norm before it; the search minimises the
    output error of each layer, not of its block
    """

    name = "awq"
    needs_calibration = True

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        grid_points: int = 20
        """Values of alpha tried between 0 (plain rounding) and 1."""
        clip_points: int = 5
        """Shrunken ranges tried for the weights, down to half; 0 keeps the full range."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.grid_points < 1 or self.clip_points < 0:
                raise ConfigError(
                    "quantizer.grid_points must be positive, quantizer.clip_points not negative"
                )

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        for layer in self.targets(model).values():
            self.fitting(layer)
        found: dict[str, dict[str, float]] = {}

        def pack(name: str, layer: nn.Module, inputs: Inputs) -> PackedLinear:
            packed, found[name] = self.search(layer, inputs)
            return packed

        quantize_with_inputs(model, calibration, pack)
        means = {k: sum(f[k] for f in found.values()) / len(found) for k in ("error_awq", "error_rtn")}
        self.facts = {**means, "layers": found}
        return model

    def search(self, layer: nn.Module, inputs: Inputs) -> tuple[ScaledLinear, dict[str, float]]:
        """The packed layer with least output error, and what was chosen."""
        weight, moments = weight_matrix(layer).float(), inputs.moments.sum
        best: tuple[float, float, float, Tensor, Grid] | None = None
        plain = 0.0
        for step in range(self.config.grid_points + 1):
            alpha = step / self.config.grid_points
            scale = inputs.mean().clamp(min=1e-4) ** alpha
            scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(1e-4, 6e4).half().float()
            for clip in self.clips():
                grid = make_grid(weight * scale, self.config)
                grid = Grid(scale=(grid.scale * clip).half().float(), zero=grid.zero, bits=grid.bits)
                error = output_error(moments, weight, grid.nearest(weight * scale) / scale)
                if step == 0 and clip == 1:
                    plain = error
                if best is None or error < best[0]:
                    best = error, alpha, clip, scale, grid
        assert best is not None
        error, alpha, clip, scale, grid = best
        packed = self.empty_layer(layer)
        packed.fill(grid.codes(weight * scale), grid)
        packed.input_scale.copy_(scale)
        return packed, {"error_awq": error, "error_rtn": plain, "alpha": alpha, "clip": clip}

    def clips(self) -> list[float]:
        """Shares of the range that grids span; only for symmetric ones, whose zero stays."""
        points = self.config.clip_points if self.config.symmetric else 0
        return [1.0, *(1 - 0.5 * (i + 1) / points for i in range(points))]

    def empty_layer(self, layer: nn.Module) -> ScaledLinear:
        return ScaledLinear(*self.fitting(layer), self.config)

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        return super().bits_per_weight(in_features, out_features) + 16 / out_features


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AWQ]
