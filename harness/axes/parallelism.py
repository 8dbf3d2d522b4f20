"""Parallelism: how one training run spreads over processes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    from torch import nn


class Parallelism(Method):
    """Wraps a model for several processes, started by torch's elastic launcher.

    Error: the loss curve equals `single` at the same global batch
    """

    axis = "parallelism"
    default = "single"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        num_processes: int = 1
        """Processes of one cell on one node."""
        num_nodes: int = 1
        """Nodes of one cell."""

    config: Config

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as every process trains it."""
        raise NotImplementedError

    def full_state(self, model: nn.Module) -> dict[str, Any]:
        """The unsharded state dict on rank 0 (empty elsewhere)."""
        return model.state_dict()
