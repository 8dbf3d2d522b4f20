"""Optimizer: how gradients become updates."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.method import Method

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer


class Optimizer(Method):
    """Builds a torch optimizer. The learning rate belongs to the stage, decay to the optimizer."""

    axis = "optimizer"
    default = "adamw"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        weight_decay: float = 0.1
        """Decay of matrices (parameters of two or more dimensions); others are not decayed."""

    config: Config

    @abstractmethod
    def build(self, model: nn.Module, learning_rate: float) -> TorchOptimizer:
        """The optimizer over the parameters that require gradients."""
        raise NotImplementedError

    def groups(self, model: nn.Module) -> list[dict[str, object]]:
        """Parameter groups: decayed matrices and undecayed rest."""
        trainable = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in trainable if p.ndim >= 2],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
