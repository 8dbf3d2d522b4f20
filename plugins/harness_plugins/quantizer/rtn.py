"""Round to nearest: every weight goes to the closest point of a uniform grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from harness import Calibration, Method, hookimpl

from ._grid import UniformConfig
from ._uniform import UniformQuantizer


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


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RoundToNearest]
