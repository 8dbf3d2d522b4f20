"""ALiBi: a penalty on the score, linear in the distance."""

import math
from typing import Any

import torch
from torch import Tensor

from harness import Method, ModelSpec, Position, hookimpl


class Alibi(Position):
    """score - m_h |q - k| with a geometric series of slopes m_h.

    Paper: Press et al. 2021, arXiv:2108.12409, section 3; for N not a power of two its released code
    """

    name = "alibi"
    changes = frozenset({"scores"})

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec, length: int) -> float:
        return spec.num_heads * length / spec.num_layers  # one matrix a row, which all layers read

    def build(self, spec: ModelSpec) -> None:
        self.register_buffer("slopes", self.slopes_of(spec.num_heads), persistent=False)

    slopes: Tensor

    def reset_buffers(self) -> None:
        self.slopes = self.slopes_of(self.spec.num_heads).to(self.slopes.device)

    @staticmethod
    def slopes_of(num_heads: int) -> Tensor:
        """2^(-8/n), 2^(-16/n), ... for the largest power of two n <= N; then every other one for 2n."""
        power = 2 ** math.floor(math.log2(num_heads))
        series = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        extra = [2 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
        return torch.tensor(series + extra)

    def has_bias(self) -> bool:
        return True

    def bias(self, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return -self.slopes[h] * (q - k).abs()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Alibi]
