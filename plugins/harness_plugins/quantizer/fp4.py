"""FP4: four-bit floating point, one sign, two exponent and one mantissa bit."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._codebook import CodebookConfig, CodebookQuantizer


class FP4(CodebookQuantizer):
    """E2M1 floats scaled to [-1, 1], as bitsandbytes lays them out.

    Paper: Dettmers et al. 2023, arXiv:2305.14314, section 4
    """

    name = "fp4"
    levels = (
        0.0,
        0.0052083333,
        0.6666666667,
        1.0,
        0.3333333333,
        0.5,
        0.1666666667,
        0.25,
        -0.0,
        -0.0052083333,
        -0.6666666667,
        -1.0,
        -0.3333333333,
        -0.5,
        -0.1666666667,
        -0.25,
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(CodebookConfig):
        """Block size and double quantization."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [FP4]
