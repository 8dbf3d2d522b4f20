"""What ways that share the batch over processes have in common."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness import Parallelism, Problem


def alone(config: Any) -> Iterable[Problem]:
    """One process, where whoever started this one did not say that there are more."""
    if config.world_size == 1 and "WORLD_SIZE" not in os.environ:
        yield Problem(
            where="parallelism.num_processes",
            message="1 process has nobody to share with; use parallelism=single, or at least 2 processes",
        )


class DataParallel(Parallelism):
    """Every process computes its share of the batch; gradients are averaged."""

    provides = frozenset({"many_processes"})

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from alone(config)

    def data_rank(self) -> tuple[int, int]:
        if not dist.is_initialized():
            return 0, 1
        return dist.get_rank(), dist.get_world_size()


class Replica(DistributedDataParallel):
    """DistributedDataParallel through which the model's own attributes can be reached."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Replicated(DataParallel):
    """Whole weights on every process."""

    def wrap(self, model: nn.Module) -> nn.Module:
        return Replica(model, gradient_as_bucket_view=True)

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else model.no_sync()  # type: ignore[operator]

    def named(self, model: nn.Module) -> nn.Module:
        return model.module  # type: ignore[return-value]
