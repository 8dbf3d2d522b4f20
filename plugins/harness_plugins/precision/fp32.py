"""fp32: 32-bit floats everywhere."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from harness import Method, Precision, hookimpl


class Fp32(Precision):
    """Single precision for weights, activations and gradients; the reference of the other formats."""

    name = "fp32"

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return nullcontext()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Fp32]
