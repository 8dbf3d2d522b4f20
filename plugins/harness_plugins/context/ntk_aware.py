"""NTK-aware scaling: a larger base stretches slow rotations and spares fast ones."""

from dataclasses import replace

from harness import Context, Method, Rotary, hookimpl, inverse_frequencies


class NtkAware(Context):
    """base * s^(R / (R - 2)), so that the slowest rotation is interpolated by s and the fastest not at all.

    Paper: Peng et al. 2023, arXiv:2309.00071, definition 1
    """

    name = "ntk_aware"

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        rotated = rotary.head_dim
        base = rotary.base * (length / rotary.max_length) ** (rotated / (rotated - 2))
        return replace(rotary, base=base, inv_freq=inverse_frequencies(rotated, base))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [NtkAware]
