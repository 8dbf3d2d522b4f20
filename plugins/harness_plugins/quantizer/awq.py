"""AWQ: weights that meet large activations get a finer grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, Method, PackedLinear, check_limits, hookimpl, weight_matrix

from ._awq import clipped_grid, input_factors, squared_error
from ._fold import Fold, find_folds, fold
from ._grid import Grid, UniformConfig, make_grid
from ._statistics import Inputs, quantize_with_inputs
from ._uniform import UniformLinear, UniformQuantizer


class ScaledLinear(UniformLinear):
    """A uniform layer whose weight was multiplied by a factor for each input.

    Shapes: input_scale in, float16
    """

    input_scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None, config: UniformConfig
    ) -> None:
        super().__init__(in_features, out_features, bias, config)
        self.register_buffer("input_scale", torch.ones(in_features, dtype=torch.float16))

    def dequantize(self) -> Tensor:
        """(code - zero) * scale / input_scale, float32."""
        return super().dequantize() / self.input_scale.float()

    def packed_product(self, x: Tensor) -> Tensor | None:
        return super().packed_product((x / self.input_scale.float()).to(x.dtype))


@dataclass(frozen=True)
class Candidate:
    """A power alpha, the factor of each input that it gives, and a grid for the scaled weight."""

    alpha: float
    factors: Tensor
    grid: Grid
    clipped: bool

    def rounded(self, weight: Tensor) -> Tensor:
        """The weight as the layer would hold it."""
        return self.grid.nearest(weight * self.factors) / self.factors


class AWQ(UniformQuantizer):
    """Activation-aware scaling s_j = mean|X_j|^alpha, alpha searched layer by layer; then clipped rounding.

    Groups of weights are rounded to asymmetric grids whose range is searched too, as in llm-awq.
    Paper: Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5, and section 5 (weight clipping)
    Error: on held-out inputs (else on the calibration's) never above round-to-nearest at the same options
    Differs: s is kept with each layer, so that every layer has its own, unless `fold` has it folded into the
    norm or linear layer before, as llm-awq does and its file format wants; layers that read one input share s
    then. The search minimises the output error of each layer on what the packed layers before it give, not
    of its block; queries and keys are clipped like the others. A channel shares a scale by default, which
    fits any width: the paper's results are for granularity=group and group_size=128
    """

    name = "awq"
    needs_calibration = True

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        grid_points: int = 20
        """Values of alpha tried between 0 (plain rounding) and 1."""
        clip_points: int | None = 10
        """Shrunken ranges tried for each group of weights, down to half; null keeps the full range."""
        fold: bool = False
        """Whether s is folded into what lies before a layer, where the model then computes the same; else
        each layer keeps its own, which no layout of `harness export --layout` holds."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.grid_points < 1:
                raise ConfigError(f"quantizer.grid_points={self.grid_points} must be at least 1")
            check_limits(self, "quantizer", "clip_points")

    config: Config

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        for layer in self.targets(model).values():
            self.fitting(layer)
        assert calibration is not None
        folds = find_folds(model, calibration.batches_BT[0]) if self.config.fold else []
        chosen: dict[str, float] = {}
        found: dict[str, dict[str, float]] = {}

        def prepare(seen: Mapping[str, Inputs]) -> None:
            for each in folds:
                if each.before is not None and seen.keys() >= set(each.readers):
                    alpha = self.fold(model, each, seen)
                    chosen.update(dict.fromkeys(each.readers, alpha))

        def pack(name: str, layer: nn.Module, inputs: Inputs) -> PackedLinear:
            packed, found[name] = self.search(layer, inputs)
            found[name]["alpha"] = chosen.get(name, found[name]["alpha"])
            return packed

        quantize_with_inputs(model, calibration, pack, moments=True, prepare=prepare)
        kinds = sorted({kind for f in found.values() for kind in f if "awq" in kind or "rtn" in kind})
        means = {f"error_{kind}": sum(f[kind] for f in found.values()) / len(found) for kind in kinds}
        kept = sum(f["alpha"] == 0 and not f["clipped"] for f in found.values())
        self.facts = {**means, "layers_kept_rounded": kept, "layers": found}
        if self.config.fold:
            self.facts["layers_folded"] = len(chosen)
        return model

    def fold(self, model: nn.Module, found: Fold, seen: Mapping[str, Inputs]) -> float:
        """Give layers that read one input the factors with least error of all, and return their power."""
        weights = [weight_matrix(model.get_submodule(name)).float() for name in found.readers]
        inputs = seen[found.readers[0]]
        assert inputs.moments is not None
        mean, judge = inputs.mean(), judging(inputs)
        best = self.best_alpha(weights, inputs.moments.mean().to(judge.dtype), mean)
        errors = {alpha: self.error_of(weights, judge, mean, alpha) for alpha in (0.0, best)}
        alpha = min(errors, key=lambda alpha: errors[alpha])
        factors = input_factors(mean, alpha)
        fold(model, found, factors)
        for name in found.readers:
            seen[name].divide(factors)
        return alpha

    def search(self, layer: nn.Module, inputs: Inputs) -> tuple[UniformLinear, dict[str, float]]:
        """The packed layer with least output error, and what was chosen."""
        assert inputs.moments is not None
        weight = weight_matrix(layer).float()
        moments = inputs.moments.mean().to(weight.dtype)
        judge = judging(inputs)
        alpha = 0.0 if self.config.fold else self.best_alpha([weight], moments, inputs.mean())
        none = torch.ones_like(moments[0])
        plain = Candidate(0.0, none, make_grid(weight, self.config), clipped=False)
        candidates = [plain]
        for share in dict.fromkeys((alpha, 0.0)):
            candidates += self.candidates(weight, moments, inputs.mean(), share)
        norm = max(squared_error(judge, weight), torch.finfo(torch.float32).tiny)
        errors = [squared_error(judge, weight - c.rounded(weight)) / norm for c in candidates]
        best = min(range(len(candidates)), key=lambda i: errors[i])
        chosen = candidates[best]
        packed = self.empty_layer(layer)
        packed.fill(chosen.grid.codes(weight * chosen.factors), chosen.grid)
        if isinstance(packed, ScaledLinear):
            packed.input_scale.copy_(chosen.factors)
        facts = {"alpha": chosen.alpha, "clipped": float(chosen.clipped)}
        return packed, facts | {"awq": errors[best], "rtn": errors[0]}

    def best_alpha(self, weights: Sequence[Tensor], moments: Tensor, mean: Tensor) -> float:
        """The power with least output error of the layers on grids over the full range (eq. 5)."""
        tried = [step / self.config.grid_points for step in range(self.config.grid_points + 1)]
        errors = {alpha: self.error_of(weights, moments, mean, alpha) for alpha in tried}
        return min(errors, key=lambda alpha: errors[alpha])

    def error_of(self, weights: Sequence[Tensor], moments: Tensor, mean: Tensor, alpha: float) -> float:
        """Squared error of the layers' outputs, of several each relative to its own."""
        factors, total = input_factors(mean, alpha), 0.0
        for weight in weights:
            rounded = make_grid(weight * factors, self.config).nearest(weight * factors) / factors
            norm = squared_error(moments, weight) if len(weights) > 1 else 1.0
            total += squared_error(moments, weight - rounded) / max(norm, torch.finfo(torch.float32).tiny)
        return total

    def candidates(self, weight: Tensor, moments: Tensor, mean: Tensor, alpha: float) -> list[Candidate]:
        """Scaled by a power, over the full range and over clipped ones."""
        factors = input_factors(mean, alpha)
        scaled = weight * factors
        found = [Candidate(alpha, factors, make_grid(scaled, self.config), clipped=False)]
        if self.config.clip_points is not None:
            inside = moments / factors / factors[:, None]
            grid = clipped_grid(scaled, inside, self.config, self.config.clip_points)
            found.append(Candidate(alpha, factors, grid, clipped=True))
        return found

    def empty_layer(self, layer: nn.Module) -> UniformLinear:
        kind = UniformLinear if self.config.fold else ScaledLinear
        return kind(*self.fitting(layer), self.config)

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        factors = 0 if self.config.fold else 16 / out_features
        return super().bits_per_weight(in_features, out_features) + factors


def judging(inputs: Inputs) -> Tensor:
    """Second moments (in x in, float32) to choose by: of held-out inputs where there are any."""
    assert inputs.moments is not None
    held_out = inputs.held_out
    return (held_out if held_out is not None and held_out.rows else inputs.moments).mean().float()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AWQ]
