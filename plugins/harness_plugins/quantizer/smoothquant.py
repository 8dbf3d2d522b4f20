"""SmoothQuant: outliers move from activations to weights, then both take eight bits."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from harness import Calibration, ConfigError, Method, PackedLinear, hookimpl, weight_matrix

from ._gptq import output_error
from ._int8 import Int8Config, Int8Quantizer, row_scales, share, to_int8
from ._statistics import Inputs, quantize_with_inputs


class SmoothQuant(Int8Quantizer):
    """W8A8 after dividing each input by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).

    Paper: Xiao et al. 2022, arXiv:2211.10438, eq. 4
    Differs: s is kept with each layer, not folded into the norm before it, so that it works on any model
    """

    name = "smoothquant"
    needs_calibration = True
    smooths = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Int8Config):
        alpha: float = 0.5
        """Share of the difficulty that moves from activations to weights (0 to 1)."""
        search: list[float] = field(default_factory=list)
        """Values of alpha of which each layer takes the one with least error; empty for `alpha`."""

        def __post_init__(self) -> None:
            for value in (self.alpha, *self.search):
                share(value, "alpha")
            if len(set(self.search)) != len(self.search):
                raise ConfigError(f"quantizer.search={self.search} names a value twice")

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        self.targets(model)
        chosen: dict[str, float] = {}

        def pack(name: str, layer: nn.Module, inputs: Inputs) -> PackedLinear:
            weight = weight_matrix(layer).float()
            tried = {a: smoothing(weight, inputs, a) for a in self.config.search or [self.config.alpha]}
            errors = {a: both_errors(weight, inputs, s) for a, s in tried.items()}
            chosen[name] = min(errors, key=lambda a: errors[a])
            return self.empty_layer(layer).fill(weight, tried[chosen[name]])

        quantize_with_inputs(model, calibration, pack)
        self.facts = {"alpha": chosen}
        return model


def smoothing(weight: Tensor, inputs: Inputs, alpha: float) -> Tensor:
    """The divisor of each input (eq. 4), within what float16 holds."""
    largest = inputs.largest.clamp(min=1e-5)
    scales = largest**alpha / weight.abs().amax(0).clamp(min=1e-5) ** (1 - alpha)
    return scales.clamp(1e-4, 6e4).half().float()


def both_errors(weight: Tensor, inputs: Inputs, smooth: Tensor) -> float:
    """Relative output error of the rounded weight, plus the share that rounding inputs adds."""
    scaled = weight * smooth
    scales = row_scales(scaled)
    rounded = to_int8(scaled, scales).float() * scales / smooth
    step = (inputs.largest / smooth).max() / 127
    noise = (scaled.double().square().sum() * step.double() ** 2 / 12) * inputs.moments.rows
    signal = ((weight.double() @ inputs.moments.sum) * weight.double()).sum().clamp(min=1e-30)
    return output_error(inputs.moments.sum, weight, rounded) + float(noise / signal)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SmoothQuant]
