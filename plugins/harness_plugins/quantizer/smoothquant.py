"""SmoothQuant: outliers move from activations to weights, then both take eight bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, Method, PackedLinear, hookimpl, weight_matrix

from ._int8 import Int8Config, Int8Linear, Int8Quantizer, share
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
        """Values of alpha of which each layer takes the one whose quantized product errs least on the
        calibration inputs; empty for `alpha`."""

        def __post_init__(self) -> None:
            for value in (self.alpha, *self.search):
                share(value, "alpha")
            if len(set(self.search)) != len(self.search):
                raise ConfigError(f"quantizer.search={self.search} names a value twice")

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        self.targets(model)
        chosen: dict[str, float] = {}
        errors: dict[str, dict[str, float]] = {}

        def pack(name: str, layer: nn.Module, inputs: Inputs) -> PackedLinear:
            weight = weight_matrix(layer).float()
            if not self.config.search:
                chosen[name] = self.config.alpha
                return self.empty_layer(layer).fill(weight, smoothing(weight, inputs, self.config.alpha))
            x = torch.cat(inputs.kept)
            tried = {
                alpha: self.empty_layer(layer).fill(weight, smoothing(weight, inputs, alpha))
                for alpha in self.config.search
            }
            found = {alpha: product_error(packed, weight, x) for alpha, packed in tried.items()}
            chosen[name] = min(found, key=lambda alpha: found[alpha])
            errors[name] = {str(alpha): error for alpha, error in found.items()}
            return tried[chosen[name]]

        quantize_with_inputs(model, calibration, pack, keep=bool(self.config.search))
        self.facts = {"alpha": chosen} | ({"layer_errors": errors} if errors else {})
        return model


def smoothing(weight: Tensor, inputs: Inputs, alpha: float) -> Tensor:
    """The divisor of each input (eq. 4), within what float16 holds."""
    largest = inputs.largest.clamp(min=1e-5)
    scales = largest**alpha / weight.abs().amax(0).clamp(min=1e-5) ** (1 - alpha)
    return scales.clamp(1e-4, 6e4).half().float()


def product_error(packed: Int8Linear, weight: Tensor, x: Tensor) -> float:
    """Squared error of the layer's product on inputs (rows x in), relative to its squared norm."""
    exact = x @ weight.T
    error = (packed.product(x) - exact).square().sum()
    return float(error / exact.square().sum().clamp(min=torch.finfo(torch.float32).tiny))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SmoothQuant]
