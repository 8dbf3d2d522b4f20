"""Sharded checkpoints: each process writes its own part of weights and optimizer state (torch's DCP).

Parameters have the names that the whole model gives them, so that a run may continue on another number of
processes, or on some that share the work in another way: each reads what it needs of all parts.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from harness.axes.parallelism import Parallelism
from harness.errors import StoreError
from harness.training import checkpoint

State = dict[str, Any]
GROUPS = "param_groups"


def state(
    parallelism: Parallelism, model: nn.Module, optimizer: TorchOptimizer, *, folder: Path, step: int
) -> State:
    """What a checkpoint holds of weights and optimizer: all of it, or where each process has put its part."""
    if not parallelism.writes_shards:
        return parallelism.state(model, optimizer)
    return write(parallelism.named(model), optimizer, folder=folder, step=step)


def load_state(
    parallelism: Parallelism, model: nn.Module, optimizer: TorchOptimizer, saved: State, *, folder: Path
) -> None:
    """Restore what `state` gave, in this layout or another.

    Raises: StoreError where processes that split the weights find a checkpoint that holds them whole
    """
    if "shards" in saved:
        read(parallelism.named(model), parallelism.own(optimizer), saved, folder=folder)
    elif parallelism.writes_shards:
        raise StoreError(
            f"{folder} holds whole checkpoints, and parallelism={parallelism.name} reads those in parts; "
            "go on with parallelism=single or ddp, or delete them, and the stage begins anew"
        )
    else:
        parallelism.load_state(model, optimizer, saved)


def write(model: nn.Module, optimizer: TorchOptimizer, *, folder: Path, step: int) -> State:
    """Write this process's tensors into a folder beside the checkpoint; every process calls it.

    Returns what belongs into the checkpoint itself: the folder's name, and all that is no tensor
    """
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    name = checkpoint.shards_name(step, checkpoint.gathered(os.urandom(4).hex())[0])
    leaves = dict(_leaves(_weights(model)))
    begun = bool(optimizer.state)
    moments: Any = {"state": {}, GROUPS: _named_groups(model, optimizer)}
    if begun:
        moments = _moments(model, optimizer)
    leaves |= _leaves(moments["state"], "state/")
    with _quiet():
        save(_tensors(leaves), storage_writer=FileSystemWriter(folder / name), no_dist=_alone())
    own = {path: value for path, value in leaves.items() if not isinstance(value, Tensor)}
    parts = checkpoint.gathered((own, moments[GROUPS]))
    return {
        "shards": name,
        "begun": begun,
        "values": {path: value for values, _ in parts for path, value in values.items()},
        "groups": [group for _, groups in parts for group in groups],
    }


def read(model: nn.Module, optimizer: TorchOptimizer, saved: State, *, folder: Path) -> None:
    """Restore what `write` wrote, whatever the layout of the processes that did.

    Raises: StoreError where a part is missing or is none of ours
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    place = folder / saved["shards"]
    weights = _weights(model)
    # For what is read into, torch takes a step of rate 0 with an optimizer that has taken none.
    moments = _moments(model, optimizer) if saved["begun"] else {"state": {}}
    leaves = dict(_leaves(weights)) | dict(_leaves(moments["state"], "state/"))
    for path, value in saved["values"].items():
        if path in leaves:
            _put(moments["state"], path.removeprefix("state/"), value)
    try:
        with _quiet():
            load(_tensors(leaves), storage_reader=_reader(place), no_dist=_alone())
    except (OSError, KeyError, pickle.UnpicklingError, CheckpointException) as error:
        raise StoreError(
            f"{place} is no whole checkpoint ({str(error).strip().splitlines()[-1]}); delete it and the file "
            "of its step, and the stage goes on from the checkpoint before"
        ) from error
    set_model_state_dict(model, weights, options=_options())
    groups = []
    for named in _named_groups(model, optimizer):  # they may part parameters that were together
        before = next(one for one in saved["groups"] if named["params"][0] in one["params"])
        groups.append({**before, "params": named["params"]})
    if saved["begun"]:
        found = {"state": moments["state"], GROUPS: groups}
        set_optimizer_state_dict(model, optimizer, found, options=_options())
        return
    optimizer.state.clear()
    for group, values in zip(optimizer.param_groups, groups, strict=True):
        group.update({name: value for name, value in values.items() if name != "params"})


def _weights(model: nn.Module) -> State:
    """Trained weights and buffers by name, each this process's part."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return get_model_state_dict(model, options=_options())


def _moments(model: nn.Module, optimizer: TorchOptimizer) -> Any:
    """The optimizer's state, and its groups, by the parameters' names."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=_options())


def _named_groups(model: nn.Module, optimizer: TorchOptimizer) -> list[dict[str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [{**group, "params": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups]


def _options() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(ignore_frozen_params=True, strict=False)


def _leaves(node: State, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested mappings that is none itself, by its path."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


def _put(node: State, path: str, value: Any) -> None:
    *parents, name = path.split("/")
    for parent in parents:
        node = node[parent]
    node[name] = value


def _tensors(leaves: State) -> dict[str, Tensor]:
    return {path: value for path, value in leaves.items() if isinstance(value, Tensor)}


def _alone() -> bool:
    return not dist.is_initialized()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that one process saves alone, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _reader(place: Path) -> Any:
    """Reads shards; code in their table is never run, as the folder may be shared with others."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    with (place / ".metadata").open("rb") as file:
        table = _Table(file).load()

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            table.storage_meta.load_id = self.load_id
            return table

    return Reader(place)


VALUES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath"},
}
"""Classes and functions that a table of shards is made of, by module; all of them only hold values."""


class _Table(pickle.Unpickler):
    """Unpickles a table of shards, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in VALUES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not what a table of shards holds")
        return super().find_class(module, name)
