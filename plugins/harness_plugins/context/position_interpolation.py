"""Position interpolation: positions are squeezed into the trained range."""

from dataclasses import replace
from typing import Any

from harness import Context, Method, Rotary, hookimpl


class PositionInterpolation(Context):
    """Divides all positions by the factor L'/L, that is, all frequencies.

    Paper: Chen et al. 2023, arXiv:2306.15595, equation 4
    """

    name = "position_interpolation"
    trains = True

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        return replace(rotary, inv_freq=rotary.inv_freq / self.config.factor)

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "linear", "rope_theta": rotary.base, "factor": float(self.config.factor)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PositionInterpolation]
