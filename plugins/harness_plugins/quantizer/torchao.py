"""torchao: PyTorch's own quantizers, weight-only or with activations in eight bits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    Calibration,
    ConfigError,
    Method,
    PackedLinear,
    Quantizer,
    check_limits,
    hookimpl,
    pack_codes,
    packed_width,
    unpack_levels,
    weight_matrix,
)


class Mode(StrEnum):
    """What is quantized."""

    weight_only = "weight_only"
    dynamic = "dynamic"


class TorchAOLinear(PackedLinear):
    """The codes and scales of a torchao tensor, packed to the bits they need.

    Shapes: codes out x packed_width(in, bits) uint8, codes + 2^(bits - 1); scale out x groups float32
    """

    codes: Tensor
    scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, config: TorchAO.Config
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.bits, self.dynamic = config.bits, config.mode is Mode.dynamic
        width = packed_width(in_features, config.bits)
        self.register_buffer("codes", torch.zeros(out_features, width, dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(out_features, config.groups(in_features)))

    def fill(self, quantized: Any) -> TorchAOLinear:
        """Store a tensor of torchao's."""
        self.to(quantized.device)
        self.codes.copy_(pack_codes(quantized.qdata.int() + 2 ** (self.bits - 1), self.bits))
        self.scale.copy_(quantized.scale)
        return self

    def integers(self) -> Tensor:
        """The codes, centred on zero (out x in, float32)."""
        middle = 2 ** (self.bits - 1)
        levels = torch.arange(2**self.bits, dtype=torch.float32, device=self.codes.device) - middle
        return unpack_levels(self.codes, self.bits, self.in_features, levels)

    def dequantize(self) -> Tensor:
        """code * scale, float32."""
        grouped = self.integers().unflatten(-1, (self.scale.shape[-1], -1))
        weight: Tensor = (grouped * self.scale[..., None]).flatten(-2)
        return weight

    def product(self, x: Tensor) -> Tensor:
        """x W^T; with `dynamic` as torchao computes it, inputs quantized by row as they come."""
        if not self.dynamic:
            return super().product(x)
        from torchao.quantization.granularity import PerRow
        from torchao.quantization.quantize_.workflows.int8.int8_tensor import (
            Int8Tensor,
            QuantizeTensorToInt8Kwargs,
        )

        weight = Int8Tensor(
            self.integers().to(torch.int8),
            self.scale,
            [1, self.in_features],
            x.dtype,
            act_quant_kwargs=QuantizeTensorToInt8Kwargs(granularity=PerRow()),
        )
        y: Tensor = nn.functional.linear(x, weight)
        return y


class TorchAO(Quantizer):
    """Integer weights by torchao, 2 to 8 bits; with `dynamic`, inputs in 8 bits too and its own product.

    Paper: torchao, https://github.com/pytorch/ao
    Raises: MissingExtraError without the package
    """

    name = "torchao"
    extra = library = "torchao"

    @dataclass(frozen=True, kw_only=True)
    class Config(Quantizer.Config):
        mode: Mode = Mode.weight_only
        """weight_only: inputs stay as they are; dynamic: 8-bit inputs, scaled row by row as they come."""
        bits: int = 8
        """Bits of a code (2 to 8; 8 with dynamic)."""
        group_size: int | None = None
        """Inputs that share a scale; null for all inputs of a channel, the only choice with dynamic."""

        def __post_init__(self) -> None:
            if not 2 <= self.bits <= 8:
                raise ConfigError(f"quantizer.bits={self.bits} must be between 2 and 8")
            check_limits(self, "quantizer", "group_size", null="all inputs of a channel")
            if self.mode is Mode.dynamic and (self.bits, self.group_size) != (8, None):
                raise ConfigError("quantizer.mode=dynamic takes bits=8 and group_size=null only")

        def groups(self, in_features: int) -> int:
            """Scales in one row."""
            return 1 if self.group_size is None else in_features // self.group_size

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        self.require_library()
        return self.swap(model, lambda name, layer: self.empty_layer(layer).fill(self.by_torchao(layer)))

    def by_torchao(self, layer: nn.Module) -> Any:
        """The library's tensor of a layer's weight."""
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerAxis, PerGroup

        out_features, in_features = weight_matrix(layer).shape
        alone = nn.Linear(in_features, out_features, bias=False, device=weight_matrix(layer).device)
        alone.weight = nn.Parameter(weight_matrix(layer).float().contiguous())
        size = self.config.group_size
        granularity = PerAxis(0) if size is None else PerGroup(size)
        dtype = getattr(torch, f"int{self.config.bits}")
        if self.config.mode is Mode.dynamic:
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig

            quantize_(alone, Int8DynamicActivationInt8WeightConfig(version=2))
        else:
            quantize_(alone, IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity))
        return alone.weight

    def empty_layer(self, layer: nn.Module) -> TorchAOLinear:
        return TorchAOLinear(*self.fitting(layer), self.config)

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        if self.config.group_size is not None and in_features % self.config.group_size:
            size = self.config.group_size
            return f"quantizer.group_size={size} must divide its {in_features} inputs; use null"
        return None

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        codes = 8 * packed_width(in_features, self.config.bits)
        return (codes + 32 * self.config.groups(in_features)) / in_features


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TorchAO]
