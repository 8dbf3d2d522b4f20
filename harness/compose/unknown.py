"""Keys that no config has: why, and which ones were perhaps meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from harness.axes import MODEL_AXES
from harness.compose.schema import model_options, mounted_axes, sections, stage_key
from harness.errors import ConfigError, UnknownNameError
from harness.registry import index
from harness.registry.known import registry

HYDRAS = {"hydra": "hydra/config.yaml", "hydra.sweeper": "hydra/sweeper/harness.yaml"}
"""Of keys of Hydra's own, the config that it has stored which holds their options."""


def unknown_key(key: str, overrides: Sequence[str], node: DictConfig | None) -> str:
    """Why there is no such key, with what exists beside it and which methods do have it."""
    parent, _, name = key.rpartition(".")
    beside: Any = OmegaConf.select(node, parent) if node is not None and parent else node
    axis = registry().axes.get(key.split(".")[0])
    if axis is not None and axis.many and (parent == axis.axis or not OmegaConf.is_dict(beside)):
        chosen = registry().get(axis.axis, key.split(".")[1]).name
        return f"{key}: {chosen} is not chosen; add it, e.g. {axis.axis}=[{chosen}]"
    if axis is not None and node is not None and not OmegaConf.is_dict(node.get(axis.axis)):
        return _unchosen(axis.axis, overrides, node)
    if parent in (taken := _taken_from_root()) and not OmegaConf.is_dict(beside):
        stage, root = taken[parent]
        return (
            f"{key}: {stage} has no {root} of its own, and takes the root's; set {root}.{name}, or choose "
            f"one for it too, {root}@{parent}=NAME"
        )
    if axis is None and (broken := registry().broken(key.split(".")[0])):
        return str(broken)
    if parent in HYDRAS:
        options = ConfigStore.instance().load(HYDRAS[parent]).node
        known = [str(option) for option in options if option != "_target_"]
        return str(UnknownNameError(what=f"option of {parent}", name=name, known=known))
    if not OmegaConf.is_dict(beside):
        return f"No config key is called '{key}'"
    known = sorted(str(item) for item in beside if item != "method")
    what = "config key" if not parent else f"option of {parent}"
    if axis is not None and "method" in beside:
        what = f"option of {parent.replace('.', '=') if axis.many else f'{parent}={beside.method}'}"
    elsewhere = [] if parent else _options_called(name)
    if elsewhere:
        return f"No config key is called '{key}'; options of that name: {', '.join(elsewhere)}"
    message = str(UnknownNameError(what=what, name=name, known=known))
    having = [
        method.name
        for method in (registry().methods(axis.axis).values() if axis is not None else ())
        if any(f.name == name for f in fields(method.Config))
    ]
    return f"{message}. Methods that have it: {', '.join(having)}" if having else message


def unknown_root(key: str, known: Iterable[str], *, experiment: str, overrides: Sequence[str]) -> ConfigError:
    """What to raise for a key that a file has put beside the root's, with the experiment that chose it."""
    unknown = UnknownNameError(what="config key", name=key, known=known)
    if experiment and key == "experiment":
        return ConfigError(
            f"experiment={experiment}: the first line of its file must be `# @package _global_`, with "
            "nothing before it (no byte-order mark either)"
        )
    if not experiment or any(text.lstrip("+").startswith(key) for text in overrides):
        return unknown
    return ConfigError(f"experiment={experiment}: {unknown}")


def _options_called(name: str) -> list[str]:
    """Keys of the options of stages, of the model and of methods that have a name."""
    kinds = {key: registry().stage(stage).Config for key, stage in sections().items()}
    kinds["model"] = model_options()
    found = [key for key, kind in kinds.items() if any(f.name == name for f in fields(kind))]
    for method in index.read()["methods"]:
        if any(option["name"] == name for option in method["options"]):
            axis = method["axis"]
            found.append(f"{axis}.{method['name']}" if registry().axes[axis].many else axis)
    return [f"{key}.{name}" for key in dict.fromkeys(found)]


def _unchosen(axis: str, overrides: Sequence[str], node: DictConfig) -> str:
    """Why an option of an axis on which nothing is chosen has nowhere to go."""
    text = next((text for text in overrides if text.lstrip("+~").startswith(f"{axis}.")), f"{axis}.*")
    if axis in MODEL_AXES and node.model.path is not None:
        return (
            f"{text} changes nothing: a pretrained model brings its own {axis}; drop it, or set "
            f"model.import=true and {axis}=NAME to put a method in its place in harness's own transformer"
        )
    return f"{text}: no {axis} is chosen, which could have options; drop it, or choose one, {axis}=NAME"


def mounts(axis: str) -> list[str]:
    """Where stages may choose for themselves on an axis, as Hydra writes it."""
    return [f"{axis}@{place}" for place, (_, name) in _taken_from_root().items() if name == axis]


def _taken_from_root() -> dict[str, tuple[str, str]]:
    """Stage and axis by the place where the stage may choose for itself, `align.optimizer`."""
    return {
        f"{stage_key(stage)}.{axis}": (stage, axis)
        for stage in registry().stages
        for axis in mounted_axes(stage)
    }
