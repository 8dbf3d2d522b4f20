"""The root of the config: one typed node per stage, the model, seeds, and the experiment."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, make_dataclass
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.nodes import BooleanNode, StringNode

from harness.axes import TRAINING_AXES
from harness.compose.experiment import Experiment
from harness.nodes import writable
from harness.registry.known import registry
from harness.spec import SET_BY_METHODS, ModelSpec


class Device(Enum):
    """Where cells compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True)
class Root(Experiment):
    """Root keys that are neither an axis nor a stage."""

    seed: int = 0
    """Seed of the stages from `seed_from` on (of all where that is null)."""
    base_seed: int = 0
    """Seed of the stages before `seed_from`, which cells of different seeds share."""
    seed_from: str | None = None
    """First stage that `seed` varies; a sweep sets it."""
    threads: int = 1
    """Processor threads of every stage that states none itself (`pretrain.threads`)."""
    device: Device = Device.auto
    """Device of every stage; `auto` takes CUDA where there is one."""
    stages: list[str] = field(default_factory=lambda: list(registry().stages))
    """Stages in order; a suffix (`instruct@chat`) names a second use of one."""
    scale: str = ""
    """Name of the scale preset, set by it."""
    where_chosen: dict[str, Any] = field(default_factory=dict)
    """Options of methods, `<axis>.<method>.<option>`, for cells that chose the method and did not type it."""
    at_most: dict[str, float] = field(default_factory=dict)
    """Bounds on options that nobody typed, by key, where a cell has them; null (no limit) is above."""


EXPERIMENT_KEYS = tuple(f.name for f in fields(Experiment))


@functools.cache
def model_options() -> type[Any]:
    """ModelSpec without what methods set, as a dataclass whose defaults are presets' starting point."""
    entries = [
        (f.name, f.type, field(default=f.default, default_factory=f.default_factory))  # type: ignore[call-overload]
        for f in fields(ModelSpec)
        if f.name not in SET_BY_METHODS
    ]
    return make_dataclass("ModelOptions", entries, kw_only=True)


def model_node() -> DictConfig:
    """The `model` node: the transformer's shape, or the path of a pretrained model and where to fetch it."""
    node: DictConfig = OmegaConf.structured(model_options())
    OmegaConf.set_struct(node, False)
    node["path"] = StringNode(None)
    node["fetch"] = None
    node["import"] = BooleanNode(False)
    OmegaConf.set_struct(node, True)
    return node


def mounted_axes(stage: str) -> tuple[str, ...]:
    """Axes that a training stage may choose for itself instead of taking the root's."""
    axes = stage_axes(stage)
    trains = all(axis in axes for axis in ("optimizer", "schedule"))
    return tuple(axis for axis in (*TRAINING_AXES, "peft") if trains and axis in axes)


def sections() -> dict[str, str]:
    """Stages by the config key under which their options stand."""
    return {stage_key(name): name for name in registry().stages}


def stage_key(stage: str) -> str:
    """The config key of a stage's options: its name, or `<name>_stage` where an axis has that name.

    A second use, `instruct@chat`, has its options under `instruct_chat` (`@` means something to Hydra).
    """
    base, _, suffix = stage.partition("@")
    key = f"{base}_stage" if base in registry().axes else base
    return f"{key}_{suffix}" if suffix else key


def stage_axes(stage: str) -> tuple[str, ...]:
    """Axes whose choices a stage reads: its own, and those that plugins add to it."""
    return registry().axes_of(stage)


def readers(axis: str) -> list[str]:
    """Stages that read an axis, in the default order."""
    return [stage for stage in registry().stages if axis in stage_axes(stage)]


def stage_node(stage: str) -> DictConfig:
    """A stage's typed options, with a null for each axis it may choose for itself."""
    node: DictConfig = writable(OmegaConf.structured(registry().stage(stage).Config))
    OmegaConf.set_struct(node, False)
    for axis in mounted_axes(stage):
        node[f"{axis}s" if registry().axes[axis].many else axis] = None
    OmegaConf.set_struct(node, True)
    return node


def root_keys() -> set[str]:
    """The keys of `root_node`, which takes longer to make."""
    many = {name for name, axis in registry().axes.items() if axis.many}
    return {field.name for field in fields(Root)} | {"model"} | set(sections()) | many


def root_node() -> DictConfig:
    """Everything but the axes, typed."""
    root: DictConfig = writable(OmegaConf.structured(Root))
    OmegaConf.set_struct(root, False)
    root["model"] = model_node()
    for stage in registry().stages:
        root[stage_key(stage)] = stage_node(stage)
    for name, axis in registry().axes.items():
        if axis.many:
            root[name] = {}
    return root
