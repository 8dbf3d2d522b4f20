"""Eight-bit weights and activations: integer products, scales outside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, PackedLinear, Quantizer, weight_matrix

EXACT = 2**24 // 128**2
"""Products of two int8 numbers whose sum float32 holds exactly."""


def row_scales(x: Tensor) -> Tensor:
    """Largest absolute value of each row over 127, float32, never zero (rows x 1)."""
    return x.abs().amax(-1, keepdim=True).float().clamp(min=1e-30) / 127


def to_int8(x: Tensor, scales: Tensor) -> Tensor:
    """Values over their scales, rounded to int8."""
    return (x.float() / scales).round().clamp(-127, 127).to(torch.int8)


def int8_product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """Exact x w^T of int8 matrices as int32; rows are padded to what the kernels take.

    Shapes: M x K, N x K -> M x N
    """
    if not x_MK.is_cuda and not torch.cpu._is_vnni_supported():
        return product_by_float(x_MK, w_NK)
    rows, columns = x_MK.shape[0], w_NK.shape[0]
    if x_MK.is_cuda:  # the CUDA kernel wants more than 16 rows and multiples of 8
        pad = torch.nn.functional.pad
        x_MK = pad(x_MK, (0, -x_MK.shape[1] % 8, 0, max(0, 17 - rows)))
        w_NK = pad(w_NK, (0, -w_NK.shape[1] % 8, 0, -columns % 8))
    product: Tensor = torch._int_mm(x_MK, w_NK.T)
    return product[:rows, :columns]


def product_by_float(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """The same by float32 products, on processors without an instruction for it: ten times as fast there.

    Error: none, as float32 holds sums of EXACT products
    """
    parts = zip(x_MK.split(EXACT, 1), w_NK.split(EXACT, 1), strict=True)
    products = [(x.float() @ w.float().T).int() for x, w in parts]
    total: Tensor = torch.stack(products).sum(0, dtype=torch.int32) if len(products) > 1 else products[0]
    return total


def outlier_columns(rows: Tensor, threshold: float) -> Tensor:
    """Indices of the columns with an entry above the threshold."""
    if threshold == float("inf"):
        return torch.empty(0, dtype=torch.long, device=rows.device)
    return torch.nonzero(rows.abs().amax(0) > threshold)[:, 0]


class Int8Linear(PackedLinear):
    """Int8 weight with a scale for each output; inputs are quantized row by row as they come.

    Inputs are divided by `smooth` first where there is one (in, float16), and the weight was multiplied.
    Columns of the input with an entry above `threshold` are multiplied in full precision.
    Shapes: codes out x in int8; scale out float32
    """

    codes: Tensor
    scale: Tensor
    smooth: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, *, smooth: bool, threshold: float
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.threshold = threshold
        self.register_buffer("codes", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(out_features))
        self.register_buffer("smooth", torch.ones(in_features, dtype=torch.float16) if smooth else None)

    def fill(self, weight: Tensor, smooth: Tensor | None = None) -> Int8Linear:
        """Store a weight (out x in), multiplied by `smooth` (in) where given."""
        self.to(weight.device)
        if smooth is not None:
            assert self.smooth is not None
            self.smooth.copy_(smooth)
            weight = weight * self.smooth.float()
        scales = row_scales(weight)
        self.codes.copy_(to_int8(weight, scales))
        self.scale.copy_(scales[:, 0])
        return self

    def dequantize(self) -> Tensor:
        """Codes times scales, the smoothing taken back, float32."""
        weight = self.codes.float() * self.scale[:, None]
        return weight if self.smooth is None else weight / self.smooth.float()

    def product(self, x: Tensor) -> Tensor:
        """x W^T with integer products, in the dtype of x."""
        rows = x.flatten(0, -2).float()
        if self.smooth is not None:
            rows = rows / self.smooth.float()
        outliers = outlier_columns(rows, self.threshold)
        inner = rows.index_fill(1, outliers, 0.0) if len(outliers) else rows
        scales = row_scales(inner)
        y = int8_product(to_int8(inner, scales), self.codes).float() * scales * self.scale
        if len(outliers):
            y = y + rows[:, outliers] @ (self.codes[:, outliers].float() * self.scale[:, None]).T
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)


@dataclass(frozen=True, kw_only=True)
class Int8Config(Quantizer.Config):
    """Options of eight-bit products."""


class Int8Quantizer(Quantizer):
    """Base of the methods that quantize weights and activations to eight bits."""

    quantizes_activations = True
    Config = Int8Config
    smooths: bool = False

    def threshold(self) -> float:
        """Input magnitude above which a column is computed in full precision."""
        return float("inf")

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        return self.swap(
            model, lambda name, layer: self.empty_layer(layer).fill(weight_matrix(layer).float())
        )

    def empty_layer(self, layer: nn.Module) -> Int8Linear:
        return Int8Linear(*self.fitting(layer), smooth=self.smooths, threshold=self.threshold())

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        smooth = 16 * in_features * self.smooths
        return 8 + (32 * out_features + smooth) / (in_features * out_features)


def share(value: float, key: str) -> None:
    """Refuse a share outside [0, 1].

    Raises: ConfigError
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"quantizer.{key}={value} must be in [0, 1]")
