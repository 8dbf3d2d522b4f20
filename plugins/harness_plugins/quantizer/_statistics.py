"""What calibrated quantizers gather of a layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, PackedLinear, replace_module

from ._calibration import walk
from ._gptq import Hessian

KEPT = 4096
"""Inputs of a layer kept as they are, evenly spaced, where a method measures with them."""


class Inputs:
    """Second moments, largest and mean absolute value of each input; every `stride`-th row as it is.

    Shapes: largest and total are in; kept holds rows x in, nothing with stride 0
    """

    def __init__(self, x: Tensor, *, stride: int = 0) -> None:
        self.stride, self.kept = stride, list[Tensor]()
        self.moments = Hessian(x.shape[-1], x.device)
        self.largest = torch.zeros(x.shape[-1], device=x.device)
        self.total = torch.zeros(x.shape[-1], device=x.device)

    def add(self, x: Tensor) -> None:
        """Inputs (rows x in)."""
        self.moments.add(x)
        self.largest = self.largest.maximum(x.abs().amax(0))
        self.total += x.abs().sum(0)
        if self.stride:
            self.kept.append(x[:: self.stride].clone())

    def mean(self) -> Tensor:
        """Mean absolute value of each input."""
        return self.total / max(1, self.moments.rows)


def quantize_with_inputs(
    model: nn.Module,
    calibration: Calibration | None,
    pack: Callable[[str, nn.Module, Inputs], PackedLinear],
    *,
    keep: bool = False,
) -> None:
    """Replace each linear layer by `pack(name, layer, inputs)`, in the order of the computation.

    `keep` has the inputs themselves handed on, about KEPT rows of them
    """
    assert calibration is not None
    tokens = sum(ids_BT.numel() for ids_BT in calibration.batches_BT)
    stride = -(-tokens // KEPT) if keep else 0
    seen: dict[str, Inputs] = {}

    def observe(name: str, x: Tensor, number: int) -> None:
        if name not in seen:
            seen[name] = Inputs(x, stride=stride)
        seen[name].add(x)

    def finish(names: Sequence[str]) -> None:
        for name in names:
            if name not in seen:  # an expert that no token reached
                raise ConfigError(
                    f"layer {name} saw no calibration token; raise quantize.calibration_sequences"
                )
            replace_module(model, name, pack(name, model.get_submodule(name), seen.pop(name)))

    walk(model, calibration.batches_BT, observe, finish)
