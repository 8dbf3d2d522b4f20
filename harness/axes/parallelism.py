"""Parallelism: how one training run spreads over processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.method import Method, check_counts

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer

    from harness.axes.optimizer import Optimizer


Batch = dict[str, "Tensor"]
Compute = Callable[["nn.Module", Batch], "tuple[Tensor, dict[str, Tensor]]"]
"""(model, micro-batch) -> (loss to go backward from, sums to report)."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A grid of processes, and what is split along its data direction; the plan computes costs from it."""

    data: int = 1
    pipeline: int = 1
    tensor: int = 1
    splits: frozenset[str] = frozenset()
    """Of `weights`, `gradients` and `states`, what each of those that share the batch keeps a part of."""
    micro_batches: int = 1
    """Pieces in which a batch passes a pipeline, for each micro-batch of the stage."""
    alternates: bool = True
    """Whether a pipeline goes backward as soon as it can, keeping as many pieces as it has stages, or all."""


class Parallelism(Method):
    """Wraps a model for several processes, started by torch's elastic launcher.

    Error: the loss curve equals `single` at the same global batch
    """

    axis = "parallelism"
    default = "single"
    writes_shards: bool = False
    """Whether each process writes its own part of a checkpoint, where none has `state`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        num_processes: int = 1
        """Processes of one cell on one node."""
        num_nodes: int = 1
        """Nodes of one cell, placed by a launcher (hydra/launcher=submitit_slurm)."""

        def __post_init__(self) -> None:
            check_counts(self, "parallelism", "num_processes", "num_nodes")

        @property
        def world_size(self) -> int:
            """Processes of one cell over all its nodes."""
            return self.num_processes * self.num_nodes

    config: Config

    @classmethod
    def trial(cls) -> Any:
        """Options under which the suite trains a tiny model and compares it with one process."""
        return cls.Config(num_processes=2)

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as every process trains it."""
        raise NotImplementedError

    def optimizer(self, method: Optimizer, model: nn.Module, learning_rate: float) -> TorchOptimizer:
        """The optimizer over the wrapped model."""
        return method.build(model, learning_rate)

    def own(self, optimizer: TorchOptimizer) -> TorchOptimizer:
        """The optimizer that keeps this process's states."""
        return optimizer

    def data_rank(self) -> tuple[int, int]:
        """This process's place among those that share the global batch: (rank, size).

        Gradients are averages over these processes once `accumulating(last=True)` has been left.
        """
        return 0, 1

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Context of one micro-batch's forward and backward; gradients are exchanged with the last."""
        return nullcontext()

    def spread(self) -> Spread:
        """The grid, without a process group: by default all processes share the batch."""
        return Spread(data=self.config.world_size)

    def splits_batches(self) -> bool:
        """Whether `accumulate` calls `compute` several times for one micro-batch."""
        return False

    def data_group(self) -> Any:
        """The process group of those that share the batch; None = all."""
        return None

    def accumulate(self, model: nn.Module, parts: list[Batch], compute: Compute) -> list[dict[str, Tensor]]:
        """Forward and backward of all micro-batches; a pipeline schedules them itself. Returns their sums."""
        found = []
        for index, part in enumerate(parts):
            with self.accumulating(model, last=index == len(parts) - 1):
                loss, sums = compute(model, part)
                loss.backward()  # type: ignore[no-untyped-call]
            found.append(sums)
        return found

    def named(self, model: nn.Module) -> nn.Module:
        """Of a wrapped model the module whose parameters have the names that they have unwrapped."""
        return model

    def full_state(self, model: nn.Module) -> dict[str, Any]:
        """The unsharded state dict on rank 0 (empty elsewhere)."""
        return self.named(model).state_dict()

    def state(self, model: nn.Module, optimizer: TorchOptimizer) -> dict[str, Any]:
        """Unsharded trained weights and optimizer state, for a checkpoint; every process calls it."""
        model = self.named(model)
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        weights = {name: value for name, value in model.state_dict().items() if name not in frozen}
        return {"model": weights, "optimizer": optimizer.state_dict()}

    def load_state(self, model: nn.Module, optimizer: TorchOptimizer, state: dict[str, Any]) -> None:
        """Restore what `state` gave."""
        self.named(model).load_state_dict(state["model"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
