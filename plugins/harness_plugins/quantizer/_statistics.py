"""What calibrated quantizers gather of a layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, Hessian, PackedLinear, replace_module, unreached, walk

KEPT = 4096
"""Inputs of a layer kept as they are, evenly spaced, where a method measures with them."""


class Inputs:
    """Largest and mean absolute value of each input; where asked for, second moments and rows as they are.

    Shapes: largest and total are in; kept holds rows x in, every `stride`-th, nothing with stride 0
    """

    def __init__(self, in_features: int, device: torch.device, *, moments: bool, stride: int = 0) -> None:
        self.stride, self.rows, self.kept = stride, 0, list[Tensor]()
        self.moments = Hessian(in_features, device) if moments else None
        self.held_out = Hessian(in_features, device) if moments else None
        self.largest = torch.zeros(in_features, device=device)
        self.total = torch.zeros(in_features, device=device)

    def add(self, x: Tensor) -> None:
        """Inputs (rows x in) to fit to."""
        self.rows += len(x)
        self.largest = self.largest.maximum(x.abs().amax(0))
        self.total += x.abs().sum(0)
        if self.moments is not None:
            self.moments.add(x)
        if self.stride:
            self.kept.append(x[:: self.stride].clone())

    def mean(self) -> Tensor:
        """Mean absolute value of each input."""
        return self.total / max(1, self.rows)

    def divide(self, factors: Tensor) -> None:
        """Make them those of the inputs divided by a factor each; rows kept as they are stay so."""
        self.largest, self.total = self.largest / factors, self.total / factors
        for moments in (self.moments, self.held_out):
            if moments is not None:
                moments.sum /= factors.outer(factors)


def quantize_with_inputs(
    model: nn.Module,
    calibration: Calibration | None,
    pack: Callable[[str, nn.Module, Inputs], PackedLinear],
    *,
    moments: bool = False,
    keep: bool = False,
    prepare: Callable[[Mapping[str, Inputs]], None] | None = None,
) -> None:
    """Replace each linear layer by `pack(name, layer, inputs)`, in the order of the computation.

    `moments` has second moments gathered, held-out ones too; `keep` has the inputs themselves handed on,
    about KEPT rows of them; `prepare` is called with the inputs of a block's layers before they are packed
    """
    assert calibration is not None
    fitted = len(calibration.batches_BT)
    tokens = sum(ids_BT.numel() for ids_BT in calibration.batches_BT)
    stride = -(-tokens // KEPT) if keep else 0
    seen: dict[str, Inputs] = {}

    def observe(name: str, x: Tensor, number: int) -> None:
        if number < fitted:
            if name not in seen:
                seen[name] = Inputs(x.shape[-1], x.device, moments=moments, stride=stride)
            seen[name].add(x)
        elif name in seen and (held_out := seen[name].held_out) is not None:
            held_out.add(x)

    def finish(names: Sequence[str]) -> None:
        for name in names:
            if name not in seen:
                raise ConfigError(unreached(model, name))
        if prepare is not None:
            prepare(seen)
        for name in names:
            replace_module(model, name, pack(name, model.get_submodule(name), seen.pop(name)))

    held_out_BT = calibration.held_out_BT if moments else ()
    walk(model, [*calibration.batches_BT, *held_out_BT], observe, finish)
