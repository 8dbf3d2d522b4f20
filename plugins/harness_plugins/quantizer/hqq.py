"""HQQ: half-quadratic quantization, which fits zero points to the weights alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, Method, hookimpl, weight_matrix

from ._grid import Granularity, Grid, UniformConfig, exponent_of, grouped_weights, round_scale
from ._uniform import UniformLinear, UniformQuantizer


class BetweenCodes(Grid):
    """A grid whose zero points may lie between codes: x_q = round(x / scale + zero)."""

    def codes(self, weight: Tensor) -> Tensor:
        grouped = weight.unflatten(-1, (self.scale.shape[-1], -1))
        codes = torch.round(grouped / self.scale[..., None] + self.zero[..., None])
        return codes.clamp(0, 2**self.bits - 1).flatten(-2)


class HQQLinear(UniformLinear):
    """A uniform layer whose zero points lie between codes.

    Shapes: zero out x groups, in the number format of the scales
    """

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, config: UniformConfig
    ) -> None:
        super().__init__(in_features, out_features, bias, config)
        self.register_buffer("zero", torch.zeros_like(self.scale))


class HQQ(UniformQuantizer):
    """Min-max grids whose zero point moves so that the errors are sparse: few weights err, by as much as
    they must. No calibration data.

    Paper: Badri and Shaji 2023, Half-Quadratic Quantization of Large Machine Learning Models,
    https://mobiusml.github.io/hqq_blog, eq. 3 to 5
    Differs: the zeros kept are those of least error, as in the library's optimize_weights_proximal_v2; its
    default keeps those of the step after, and starts 4 bits from whole ones. Scales and zeros are rounded to
    float16 before the weights are, not after; a channel shares a scale by default, which fits any width: the
    library's default is granularity=group and group_size=64
    """

    name = "hqq"

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        norm: float = 0.7
        """The p of the errors' l_p norm (0 < p <= 1); 1 is the plain absolute value."""
        penalty: float = 10.0
        """Weight of the quadratic term that ties errors to their sparse part, at first."""
        growth: float = 1.01
        """Factor of that weight from one iteration to the next."""
        iterations: int = 20
        """Iterations at most; they end where the mean absolute error no longer falls."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.norm <= 1:
                raise ConfigError(f"quantizer.norm={self.norm} must be in (0, 1]")
            if self.penalty <= 0 or self.growth < 1:
                raise ConfigError("quantizer.penalty must be positive and quantizer.growth at least 1")
            if self.iterations < 0:
                raise ConfigError(f"quantizer.iterations={self.iterations} must not be negative")
            if self.symmetric:
                raise ConfigError("quantizer=hqq fits zero points; quantizer.symmetric must be false")
            if self.granularity is Granularity.tensor:
                raise ConfigError("quantizer=hqq takes quantizer.granularity=channel or group")

        def bits_per_weight(self, in_features: int, out_features: int) -> float:
            zeros = torch.finfo(self.dtype()).bits - 8  # in place of a byte
            return super().bits_per_weight(in_features, out_features) + zeros * self.groups(in_features) / (
                in_features
            )

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        errors: dict[str, float] = {}

        def pack(name: str, layer: nn.Module) -> UniformLinear:
            weight, packed = weight_matrix(layer).float(), self.empty_layer(layer)
            grid = self.fit(weight)
            packed.fill(grid.codes(weight), grid)
            errors[name] = float((packed.dequantize() - weight).abs().mean() / weight.abs().mean())
            return packed

        model = self.swap(model, pack)
        self.facts = {"error_absolute": sum(errors.values()) / len(errors)}
        return model

    def fit(self, weight: Tensor) -> Grid:
        """The min-max grid with the zero points of least mean absolute error that the iterations met."""
        config, start = self.config, self.first_grid(weight)
        zero, penalty = start.zero, config.penalty
        best, least = start, float("inf")
        for _ in range(config.iterations + 1):
            tried = replace(start, zero=zero.to(config.dtype()).to(weight.dtype))
            codes = tried.codes(weight)
            error = weight - tried.values(codes)
            mean = float(error.abs().mean())
            if mean >= least:
                break
            best, least = tried, mean
            target = (weight - shrink(error, penalty, config.norm)).unflatten(-1, (start.scale.shape[-1], -1))
            zero = (codes.view_as(target) - target / start.scale[..., None]).mean(-1)  # eq. 5
            penalty *= config.growth
        return best

    def first_grid(self, weight: Tensor) -> BetweenCodes:
        """From least to largest weight of each group, wherever zero lies."""
        config = self.config
        low, high = grouped_weights(weight, config).aminmax(dim=-1)
        flat = low == high  # one value: the range reaches zero
        low, high = low.where(~flat, low.clamp(max=0)), high.where(~flat, high.clamp(min=0))
        scale = (high - low) / (2**config.bits - 1)
        exponent = exponent_of(scale, config.dtype())
        scale = round_scale(scale, exponent, config.dtype(), up=torch.ones_like(flat))
        return BetweenCodes(scale=scale, zero=-low / scale, bits=config.bits, exponent=exponent)

    def empty_layer(self, layer: nn.Module) -> HQQLinear:
        return HQQLinear(*self.fitting(layer), self.config)


def shrink(error: Tensor, penalty: float, norm: float) -> Tensor:
    """The generalized soft threshold: the sparse part of least l_p norm plus quadratic penalty (eq. 4)."""
    size = error.abs()
    if norm == 1:
        return error.sign() * torch.relu(size - 1 / penalty)
    return error.sign() * torch.relu(size - size.clamp(min=1e-30) ** (norm - 1) / penalty)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [HQQ]
