"""What the fully sharded ways have in common (FSDP2)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import nn

from harness import Spread
from harness_plugins.parallelism._processes import DataParallel


class Sharded(DataParallel):
    """Weights, gradients and optimizer state split over processes."""

    provides = frozenset({"many_processes", "sharded_weights"})
    writes_shards = True
    reshard: bool = True
    """Whether weights are dropped again between forward and backward."""

    def wrap(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (dist.get_world_size(),))
        for block in blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard)
        fully_shard(model, mesh=mesh, reshard_after_forward=self.reshard)
        gather_to_generate(model)
        return model

    def spread(self) -> Spread:
        splits = {"gradients", "states", *(("weights",) if self.reshard else ())}
        return Spread(data=self.config.world_size, splits=frozenset(splits))

    def accumulating(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def full_state(self, model: nn.Module) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def gather_to_generate(model: nn.Module) -> None:
    """Have a sharded model gather its weights when it generates.

    An adapted one hands that on to the model inside, whose calls the hooks of the outer one do not see.
    """
    from torch.distributed.fsdp import register_fsdp_forward_method

    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of a transformer: the elements of its outermost module lists."""
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList) and len({type(layer) for layer in child}) == 1:
            found.extend(child)
        else:
            found.extend(blocks(child))
    return found
