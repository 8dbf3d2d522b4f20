"""bf16: matrix products in bfloat16; weights in fp32, or in bfloat16 with what updates need beside them."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness import Method, Precision, Problem, StoredWeights, hookimpl
from harness_plugins.precision._bf16_weights import HELD, Bf16Weights, Weights


class Bf16(Precision):
    """Mixed precision with 8 bits of mantissa and fp32's range; needs no loss scaling.

    Paper: Kalamkar et al. 2019, arXiv:1905.12322; weights in bfloat16: Zamirai et al. 2020, arXiv:2010.06192
    Error: relative error of a product up to 2^-8; sums are kept in fp32, those of several micro-batches'
    gradients in the weights' format
    State: with weights in bfloat16, what is kept beside them
    """

    name = "bf16"

    @dataclass(frozen=True, kw_only=True)
    class Config(Precision.Config):
        weights: Weights = Weights.fp32
        """fp32: cast at every use; master: in bfloat16, with a copy in fp32 that is updated; kahan: in
        bfloat16, with what rounding left in bfloat16 beside it; rounded: in bfloat16 alone, so that updates
        below 2^-9 of a weight are lost."""

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        parallelism = cell.choice("parallelism")
        if config.weights is not Weights.fp32 and parallelism.config.world_size > 1:
            yield Problem(
                where="precision.weights",
                message=f"{config.weights.value} is for one process, and "
                f"parallelism={parallelism.method.name} has {parallelism.config.world_size}; use "
                "precision.weights=fp32",
            )

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return torch.autocast(device_type, dtype=torch.bfloat16)

    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16

    def stored(self, parameters: Sequence[nn.Parameter]) -> StoredWeights:
        kind = self.config.weights
        return super().stored(parameters) if kind is Weights.fp32 else Bf16Weights(parameters, kind)

    def bytes_per_weight(self) -> int:
        return HELD[self.config.weights]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Bf16]
