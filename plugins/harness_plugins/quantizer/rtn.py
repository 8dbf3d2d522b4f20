"""Round to nearest: every weight goes to the closest point of a uniform grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from harness import Calibration, Method, hookimpl, weight_matrix

from ._uniform import UniformConfig, UniformLinear, UniformQuantizer, make_grid


class RoundToNearest(UniformQuantizer):
    """Round-to-nearest weight quantization, 2 to 8 bits; x_q = R(x / S) - Z.

    Paper: Jacob et al. 2018, arXiv:1712.05877
    Error: at most half a step of the grid for each weight
    """

    name = "rtn"

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        """Options of the grid."""

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        return self.swap(model, lambda name, layer: self.round(layer))

    def round(self, layer: nn.Module) -> UniformLinear:
        """A layer with its weights at the nearest codes."""
        self.fit_layer(layer)
        weight = weight_matrix(layer).float()
        grid = make_grid(weight, self.config)
        return self.empty_layer(layer).fill(grid.codes(weight), grid)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RoundToNearest]
