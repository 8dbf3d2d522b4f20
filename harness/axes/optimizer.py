"""Optimizer: how gradients become updates."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.method import Method

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer

RATE = "rate"
"""Key of a parameter group's factor on the learning rate."""


class Optimizer(Method):
    """Builds a torch optimizer. The learning rate belongs to the stage, decay to the optimizer.

    Raises: ConfigError for a negative decay or a beta outside [0, 1)
    """

    axis = "optimizer"
    default = "adamw"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        weight_decay: float = 0.1
        """Decay of matrices (parameters of two or more dimensions); others are not decayed."""

        def __post_init__(self) -> None:
            if self.weight_decay < 0:
                raise ConfigError(f"optimizer.weight_decay={self.weight_decay} must not be negative")
            for field in fields(self):
                value = getattr(self, field.name)
                if field.name.startswith("beta") and isinstance(value, float) and not 0 <= value < 1:
                    raise ConfigError(f"optimizer.{field.name}={value} must lie in [0, 1)")

    config: Config
    rates: Sequence[Method] = ()
    """Methods that let some parameters learn faster than others, set before `build`."""
    moments: int = 2
    """Tensors it keeps between steps for each trained one, of its shape and format."""

    @abstractmethod
    def build(self, model: nn.Module, learning_rate: float) -> TorchOptimizer:
        """The optimizer over the parameters that require gradients.

        All it must remember is in its state dict; it reads `lr` from its groups at every step.
        """
        raise NotImplementedError

    def finish(self, optimizer: TorchOptimizer) -> None:
        """Called once when training is over; leaves on the model the weights to be used."""

    def state_bytes(self, model: nn.Module) -> int:
        """Bytes of the tensors it keeps between steps for a model's trained parameters, scalars aside.

        The plan asks this of shapes without data, so it must be a formula.
        """
        return self.moments * sum(p.numel() * p.element_size() for p in trained_parameters(model))

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups: decayed matrices and undecayed rest, for each learning rate that `rates` ask for.

        RATE stands in each: its learning rate over the stage's
        """
        found: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                factor = math.prod(method.rate(name, parameter) for method in self.rates)
                found.setdefault(factor, []).append(parameter)
        decay = self.config.weight_decay
        groups: list[dict[str, Any]] = []
        for factor, parameters in found.items():
            matrices = [p for p in parameters if p.ndim >= 2]
            rest = [p for p in parameters if p.ndim < 2]
            groups.append({"params": matrices, "weight_decay": decay, RATE: factor})
            groups.append({"params": rest, "weight_decay": 0.0, RATE: factor})
        return [group for group in groups if group["params"]]


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients."""
    return [p for p in model.parameters() if p.requires_grad]
