"""Composition through Hydra: overrides in, a cell out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from harness.compose import explain, lean, shadows
from harness.compose.arguments import experiment_name, publish_file, standing
from harness.compose.cell import Cell
from harness.compose.publish import publish
from harness.compose.settle import typed_keys
from harness.registry.known import registry

CONFIG_NAME = "config"

lean.install()


@functools.cache
def config_dir() -> Path:
    """The folder of config.yaml: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / f"{CONFIG_NAME}.yaml").is_file():
            return candidate
    raise AssertionError(f"no conf folder in or beside {package}")


def compose(overrides: Sequence[str] = ()) -> Cell:
    """The cell of these command-line overrides.

    Raises: ConfigError or PluginError that says where, what is wrong and what would work
    """
    node, choices = load(overrides)
    return Cell(
        node,
        overrides=tuple(overrides),
        experiment=experiment_name(choices.get("experiment")),
        typed=typed_keys(overrides),
    )


def load(overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str | None]]:
    """The composed node without Hydra's own, and what was chosen in each config group.

    Raises: ConfigError or PluginError, translated from Hydra's
    """
    publish()
    overrides = written_out(standing(overrides))
    for text in overrides:
        publish_file(text)
    explain.refuse_nothing(overrides, config_dir())
    explain.check(overrides)
    shadows.refuse_methods(overrides)
    try:
        return _load(overrides)
    except explain.REFUSED as error:
        explain.explain(error, overrides, _choices_alone(overrides))


def written_out(overrides: Sequence[str]) -> list[str]:
    """Overrides with a list on an axis that mixes its methods as the method `mixture` of these sources.

    `instruction=[task,chat]` is `instruction=mixture instruction.sources=[task,chat]`.
    """
    found: list[str] = []
    last = {text.partition("=")[0]: place for place, text in enumerate(overrides)}
    for place, text in enumerate(overrides):
        key, _, value = text.partition("=")
        axis = registry().axes.get(key)
        mixes = axis is not None and not axis.many and "mixture" in registry().methods(key)
        if not (mixes and value.startswith("[") and "," in value):
            found.append(text)
        elif last[key] == place:  # or a later choice replaces it
            found += [f"{key}=mixture", f"{key}.sources={value}"]
    return found


def options_of(group: str) -> list[str]:
    """What can be chosen in a config group."""
    publish()
    with _initialized():
        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))


def _initialized() -> contextlib.AbstractContextManager[object]:
    """Hydra ready to compose: as `hydra.main` made it, whose search path holds, else with our configs."""
    if GlobalHydra.instance().is_initialized():
        return contextlib.nullcontext()
    directory = str(config_dir())
    return hydra.initialize_config_dir(config_dir=directory, job_name="harness", version_base="1.3")


def _load(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
    with _initialized():
        node = hydra.compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
    choices = dict(node.hydra.runtime.choices)
    shadows.refuse_choices(choices, node.hydra.runtime.config_sources)
    OmegaConf.set_struct(node, False)
    del node["hydra"]
    return node, choices


def _choices_alone(overrides: Sequence[str]) -> DictConfig | None:
    """The composition of the overrides that choose (groups), or None where even they fail."""
    groups = [text for text in overrides if "." not in text.partition("=")[0].partition("@")[0]]
    for attempt in (groups, []):
        try:
            return _load(attempt)[0]
        except explain.REFUSED:
            continue
    return None
