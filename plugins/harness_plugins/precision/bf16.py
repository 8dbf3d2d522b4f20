"""bf16: matrix products in bfloat16, weights in fp32."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from harness import Method, Precision, hookimpl


class Bf16(Precision):
    """Mixed precision with 8 bits of mantissa and fp32's range; needs no loss scaling.

    Paper: Kalamkar et al. 2019, arXiv:1905.12322
    Error: relative error of a product up to 2^-8; sums are kept in fp32
    """

    name = "bf16"

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return torch.autocast(device_type, dtype=torch.bfloat16)

    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Bf16]
