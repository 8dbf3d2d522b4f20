"""LLM.int8(): eight-bit products, with outlier features computed in full precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import ConfigError, Method, PackedLayout, PackedLinear, hookimpl

from ._int8 import Int8Config, Int8Quantizer


class LLMInt8(Int8Quantizer):
    """Vector-wise W8A8; input features with an entry above the threshold are split off.

    Paper: Dettmers et al. 2022, arXiv:2208.07339, section 3
    Differs: the split-off product is computed in the activation's precision on dequantized weights
    """

    name = "llm_int8"

    @dataclass(frozen=True, kw_only=True)
    class Config(Int8Config):
        outlier_threshold: float = 6.0
        """Magnitude above which an input feature is computed in full precision; the paper's alpha."""

        def __post_init__(self) -> None:
            if self.outlier_threshold <= 0:
                raise ConfigError(f"quantizer.outlier_threshold={self.outlier_threshold} must be positive")

    config: Config

    def threshold(self) -> float:
        return self.config.outlier_threshold

    def layouts(self) -> Sequence[str]:
        return ("bitsandbytes",)

    def lay_out(
        self, layers: Mapping[str, PackedLinear], layout: str, *, skipped: Sequence[str]
    ) -> PackedLayout:
        from ._bitsandbytes import common, eight_bit, eight_bit_weight

        threshold = self.config.outlier_threshold
        return PackedLayout(
            config=common(skipped) | {"load_in_8bit": True, "llm_int8_threshold": threshold},
            tensors={name: eight_bit(layer) for name, layer in layers.items()},  # type: ignore[arg-type]
            weight_of=eight_bit_weight,
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LLMInt8]
