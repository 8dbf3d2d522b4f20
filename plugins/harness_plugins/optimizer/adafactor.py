"""Adafactor: second moments kept as row and column means."""

from dataclasses import dataclass

import torch
from torch import nn

from harness import ConfigError, Method, Optimizer, hookimpl, trained_parameters


class Adafactor(Optimizer):
    """Adam's second moment factored into rows and columns, with steps relative to the weights' scale.

    Paper: Shazeer and Stern 2018, arXiv:1804.04235, algorithm 4
    State: one number for each row and column of a matrix
    Differs: the learning rate of the stage caps the paper's 1 / sqrt(t), so that schedules apply
    """

    name = "adafactor"
    conflicts = frozenset({"sharded_weights"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.0
        """Decoupled decay of matrices."""
        decay_exponent: float = -0.8
        """The second moment's decay in step t is 1 - t ** decay_exponent."""
        clip: float = 1.0
        """Largest root mean square of an update."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.decay_exponent > 0:
                raise ConfigError(f"optimizer.decay_exponent={self.decay_exponent} must not be positive")
            if self.clip < 1:
                raise ConfigError(f"optimizer.clip={self.clip} must be at least 1")

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(
            self.groups(model), lr=learning_rate, beta2_decay=self.config.decay_exponent, d=self.config.clip
        )

    def state_bytes(self, model: nn.Module) -> int:
        """Row and column means of the last two dimensions; a vector's second moment whole."""
        numbers = 0
        for p in trained_parameters(model):
            rows_columns = p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim > 1 else p.numel()
            numbers += rows_columns * p.element_size()
        return numbers


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Adafactor]
