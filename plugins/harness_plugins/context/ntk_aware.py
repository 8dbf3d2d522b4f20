"""NTK-aware scaling: a larger base stretches slow rotations and spares fast ones."""

from typing import Any

from harness import Context, Method, Rotary, hookimpl


class NtkAware(Context):
    """base * s^(R / (R - 2)), so that the slowest rotation is interpolated by s and the fastest not at all.

    Frequencies that are scaled already (Llama 3's) keep that scaling.

    Raises: IncompatibleError for heads of one rotation
    Paper: Peng et al. 2023, arXiv:2309.00071, definition 1
    """

    name = "ntk_aware"

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        return rotary.rebased(self.base(rotary))

    def base(self, rotary: Rotary) -> float:
        """The larger base."""
        return rotary.stretched_base(self.config.factor)

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": self.base(rotary)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [NtkAware]
