"""fp8: linear layers on 8-bit floats, everything else as bf16."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harness import Method, Precision, hookimpl


class Fp8(Precision):
    """E4M3 for weights and activations, E5M2 for gradients, each tensor scaled to its range at every use.

    Paper: Micikevicius et al. 2022, arXiv:2209.05433, sections 3 and 4
    Error: relative error of an operand up to 2^-4 (E4M3), 2^-3 (E5M2); sums are kept in fp32 or bfloat16
    Differs: on devices without FP8 products the operands are rounded to FP8 and multiplied in bfloat16,
    which gives the accuracy and not the speed
    """

    name = "fp8"
    rounding_bytes = 3  # itself, and where no kernel takes it the same in bfloat16

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return _fp8(device_type)

    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16


@contextmanager
def _fp8(device_type: str) -> Iterator[None]:
    with torch.autocast(device_type, dtype=torch.bfloat16), _LinearInFp8():
        yield


class _LinearInFp8(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            return linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear on rounded operands."""
    flat: Tensor = _Product.apply(x.flatten(0, -2), weight)  # type: ignore[no-untyped-call]
    out: Tensor = flat.unflatten(0, x.shape[:-1])
    if bias is not None:
        out = out + bias.to(out.dtype)
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        x, weight = rounded(x_MK, torch.float8_e4m3fn), rounded(weight_NK, torch.float8_e4m3fn)
        ctx.save_for_backward(*x, *weight)
        ctx.dtypes = x_MK.dtype, weight_NK.dtype
        return product(x, (weight[0].t(), weight[1]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, weight8, weight_scale = ctx.saved_tensors
        gradient = rounded(gradients[0], torch.float8_e5m2)
        to_x = product(gradient, (weight8, weight_scale))
        to_weight = product((gradient[0].t(), gradient[1]), (x8, x_scale))
        return to_x.to(ctx.dtypes[0]), to_weight.to(ctx.dtypes[1])


def rounded(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor in FP8 with the scale that brings it back."""
    value = value.detach()
    # An expert may have no token.
    largest = torch.linalg.vector_norm(value, torch.inf) if value.numel() else value.new_zeros(())
    scale = largest.float().clamp(min=1e-12) / torch.finfo(dtype).max
    found = torch.empty_like(value, dtype=dtype)
    for part, target in zip(pieces(value), pieces(found), strict=True):
        target.copy_(part.float() / scale)
    return found, scale


def pieces(value: Tensor) -> tuple[Tensor, ...]:
    """Some rows at once: logits of all tokens take several times their bytes in fp32."""
    rows: tuple[Tensor, ...] = value.split(max(1, 2**18 // value.shape[-1]))  # type: ignore[no-untyped-call]
    return rows


def product(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """Matrix product of two scaled FP8 tensors in bfloat16."""
    (a_MK, a_scale), (b_KN, b_scale) = left, right
    native = a_MK.is_cuda and torch.cuda.get_device_capability(a_MK.device) >= (8, 9)
    if native and all(size % 16 == 0 for size in (*a_MK.shape, *b_KN.shape)):
        a_MK, b_KN = a_MK.contiguous(), b_KN.t().contiguous().t()  # by rows, and by columns
        return torch._scaled_mm(a_MK, b_KN, scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16)
    with torch.autocast(a_MK.device.type, enabled=False):
        plain = a_MK.to(torch.bfloat16) @ b_KN.to(torch.bfloat16)
        for part in pieces(plain):
            part.copy_(part.float() * (a_scale * b_scale))
        return plain


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Fp8]
