"""GPTQ: rounding one column at a time, compensating its error in the columns that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness import (
    Calibration,
    ConfigError,
    Hessian,
    Method,
    hookimpl,
    output_error,
    replace_module,
    unreached,
    walk,
    weight_matrix,
)

from ._gptq import gptq_codes
from ._grid import UniformConfig, make_grid
from ._uniform import UniformLinear, UniformQuantizer

TOKENS_PER_INPUT = 2
"""Calibration tokens for each input of a layer, with fewer of which the moments are mostly noise. Some layers
want far more, and held-out inputs say which."""


class GPTQ(UniformQuantizer):
    """Second-order weight quantization on calibration data, block by block.

    The grid is that of the paper and its code: asymmetric, from least to largest weight of a row.
    Paper: Frantar et al. 2022, arXiv:2210.17323, algorithm 1
    Error: on held-out inputs (else on the calibration's) never above round-to-nearest at the same options
    Differs: dead inputs are rounded, not zeroed; a layer whose output errs less with plain rounding, on
    inputs that nothing was fitted to, keeps that; with act_order the grids of groups are set before the
    first column (auto_gptq's static_groups), so that no index is stored
    """

    name = "gptq"
    needs_calibration = True

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        damping: float = 0.01
        """Added to the Hessian's diagonal, as a share of its mean."""
        block_size: int = 128
        """Columns whose updates to the rest are applied at once."""
        act_order: bool = False
        """Whether columns are met in the order of falling second moment."""
        true_sequential: bool = True
        """Whether the layers of a block are packed in turn, each fitted to what the packed ones before it
        in the block give; else all are fitted to what the unpacked block gives."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.damping < 0:
                raise ConfigError(f"quantizer.damping={self.damping} must not be negative")
            if self.block_size < 1:
                raise ConfigError(f"quantizer.block_size={self.block_size} must be at least 1")

    config: Config

    def calibration_tokens(self, in_features: int) -> int:
        return TOKENS_PER_INPUT * in_features

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        assert calibration is not None
        hessians: dict[str, Hessian] = {}
        held_out: dict[str, Hessian] = {}
        batches = [*calibration.batches_BT, *calibration.held_out_BT]
        errors: dict[str, dict[str, float]] = {}

        def observe(name: str, x: Tensor, number: int) -> None:
            seen = hessians if number < len(calibration.batches_BT) else held_out
            seen.setdefault(name, Hessian(x.shape[-1], x.device)).add(x)

        def finish(names: Sequence[str]) -> None:
            for name in names:
                layer = model.get_submodule(name)
                if name not in hessians:
                    raise ConfigError(unreached(model, name))
                packed, errors[name] = self.pack(layer, hessians.pop(name), held_out.pop(name, None))
                replace_module(model, name, packed)

        for layer in self.targets(model).values():
            self.fitting(layer)
        walk(model, batches, observe, finish, sequential=self.config.true_sequential)
        self.facts = summarize(errors)
        return model

    def pack(
        self, layer: nn.Module, hessian: Hessian, held_out: Hessian | None
    ) -> tuple[UniformLinear, dict[str, float]]:
        """A packed layer, and relative output errors with and without compensation."""
        weight, config = weight_matrix(layer).float(), self.config
        if hessian.rows < self.calibration_tokens(weight.shape[1]):
            raise ConfigError(
                f"calibration has {hessian.rows} tokens for a layer with {weight.shape[1]} inputs; GPTQ "
                f"needs {TOKENS_PER_INPUT} an input: raise quantize.calibration_sequences or "
                "quantize.calibration_length"
            )
        plain = make_grid(weight, config)
        codes, grid = gptq_codes(
            weight,
            hessian.sum,
            config,
            damping=config.damping,
            block_size=config.block_size,
            act_order=config.act_order,
        )
        candidates = {"gptq": grid.values(codes), "rtn": plain.nearest(weight)}
        errors = {name: output_error(hessian.sum, weight, w) for name, w in candidates.items()}
        judged = errors
        if held_out is not None:
            judged = {name: output_error(held_out.sum, weight, w) for name, w in candidates.items()}
        kept = min(judged, key=lambda name: judged[name])
        if kept == "rtn":
            codes, grid = plain.codes(weight), plain
        errors["stored"] = errors[kept]
        if held_out is not None:
            held = {f"held_out_{name}": error for name, error in judged.items()}
            errors |= held | {"held_out_stored": judged[kept]}
        return self.empty_layer(layer).fill(codes, grid), errors | {"rounded": float(kept == "rtn")}


def summarize(errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Mean relative output errors over layers, and how many layers kept plain rounding."""
    kinds = sorted({kind for found in errors.values() for kind in found} - {"rounded"})
    means = {f"error_{kind}": sum(e.get(kind, 0.0) for e in errors.values()) / len(errors) for kind in kinds}
    kept = sum(int(e["rounded"]) for e in errors.values())
    return {**means, "layers_kept_rounded": kept, "layer_errors": errors}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GPTQ]
