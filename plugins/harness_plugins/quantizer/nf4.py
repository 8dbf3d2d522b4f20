"""NF4: four bits whose levels are equally likely under a normal distribution."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._codebook import CodebookConfig, CodebookQuantizer


class NF4(CodebookQuantizer):
    """NormalFloat, the information-theoretically even codebook for normal weights.

    Paper: Dettmers et al. 2023, arXiv:2305.14314, section 3 and appendix E
    """

    name = "nf4"
    levels = (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(CodebookConfig):
        """Block size and double quantization."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [NF4]
