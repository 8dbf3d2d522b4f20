"""What calibrated quantizers gather of a layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness import Calibration, ConfigError, PackedLinear, replace_module

from ._calibration import walk
from ._gptq import Hessian


class Inputs:
    """Second moments, largest and mean absolute value of each input.

    Shapes: largest and total are in
    """

    def __init__(self, x: Tensor) -> None:
        self.moments = Hessian(x.shape[-1], x.device)
        self.largest = torch.zeros(x.shape[-1], device=x.device)
        self.total = torch.zeros(x.shape[-1], device=x.device)

    def add(self, x: Tensor) -> None:
        """Inputs (rows x in)."""
        self.moments.add(x)
        self.largest = self.largest.maximum(x.abs().amax(0))
        self.total += x.abs().sum(0)

    def mean(self) -> Tensor:
        """Mean absolute value of each input."""
        return self.total / max(1, self.moments.rows)


def quantize_with_inputs(
    model: nn.Module,
    calibration: Calibration | None,
    pack: Callable[[str, nn.Module, Inputs], PackedLinear],
) -> None:
    """Replace each linear layer by `pack(name, layer, inputs)`, in the order of the computation."""
    assert calibration is not None
    seen: dict[str, Inputs] = {}

    def observe(name: str, x: Tensor, number: int) -> None:
        if name not in seen:
            seen[name] = Inputs(x)
        seen[name].add(x)

    def finish(names: Sequence[str]) -> None:
        for name in names:
            if name not in seen:  # an expert that no token reached
                raise ConfigError(
                    f"layer {name} saw no calibration token; raise quantize.calibration_sequences"
                )
            replace_module(model, name, pack(name, model.get_submodule(name), seen.pop(name)))

    walk(model, calibration.batches_BT, observe, finish)
