"""ZeRO-1: optimizer state split over processes."""

import inspect
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from harness import Method, Optimizer, Spread, hookimpl
from harness_plugins.parallelism._processes import Replicated


class Zero1(Replicated):
    """Each process keeps the optimizer state of its share of the parameters.

    Paper: Rajbhandari et al. 2019, arXiv:1910.02054, section 5.1
    """

    name = "zero1"
    provides = frozenset({"many_processes", "split_optimizer"})

    def optimizer(self, method: Optimizer, model: nn.Module, learning_rate: float) -> TorchOptimizer:
        # Importing it loads half of torch.distributed (1.2 s), which nothing that only plans needs.
        from torch.distributed.optim import ZeroRedundancyOptimizer

        plain = method.build(model, learning_rate)
        known = inspect.signature(type(plain).__init__).parameters
        if "defaults" in known:
            options: dict[str, Any] = {"defaults": plain.defaults}
        else:
            options = {name: value for name, value in plain.defaults.items() if name in known}
        groups = [dict(group) for group in plain.param_groups]
        # The learning rate is an argument of its own there, and every other option stands in the groups.
        return ZeroRedundancyOptimizer(groups, optimizer_class=type(plain), **options)

    def own(self, optimizer: TorchOptimizer) -> TorchOptimizer:
        return optimizer.optim  # type: ignore[attr-defined, no-any-return]

    def spread(self) -> Spread:
        return Spread(data=self.config.world_size, splits=frozenset({"states"}))

    def state(self, model: nn.Module, optimizer: TorchOptimizer) -> dict[str, Any]:
        optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]
        if dist.get_rank() == 0:
            return super().state(model, optimizer)
        return {"model": {}, "optimizer": {}}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Zero1]
