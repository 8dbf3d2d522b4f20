"""ZeroQuant: eight-bit weights by row and activations by token, scaled as they come."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._int8 import Int8Config, Int8Quantizer


class ZeroQuant(Int8Quantizer):
    """Fine-grained W8A8 without calibration: a scale for each row of the weight and each token.

    Paper: Yao et al. 2022, arXiv:2206.01861, section 4.1
    Differs: a group of rows is one row; no layer-by-layer distillation
    """

    name = "zeroquant"

    @dataclass(frozen=True, kw_only=True)
    class Config(Int8Config):
        """There is nothing to choose."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ZeroQuant]
