"""Publishing: every method's Config becomes `<axis>=<name>` in Hydra's ConfigStore."""

from __future__ import annotations

import functools
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from harness.axes import BUILTIN
from harness.compose.schema import mounted_axes, root_node, stage_key
from harness.nodes import option_node
from harness.registry.known import registry


class PluginConf(SearchPathPlugin):
    """Adds the conf folders that plugins ship to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in registry().conf:
            search_path.append(provider="harness plugin", path=path)


class Published(ConfigNode):
    """A method in Hydra's ConfigStore, imported when it is composed.

    Hydra copies a node before it changes it (`ConfigStore.load`), and the whole store with each composition
    (`CachingConfigRepository`): what stands in the store is shared by those copies.
    """

    def __init__(self, axis: str, name: str, *, provider: str) -> None:
        self.axis, self.method = axis, name
        self.name, self.group, self.provider = f"{name}.yaml", axis, provider
        self.package = f"{axis}.{name}" if registry().axes[axis].many else axis
        self._own: Any = None

    @property
    def node(self) -> Any:  # type: ignore[override]
        """The typed options: those of a copy where it was given its own, else those that all copies share."""
        return _options(self.axis, self.method) if self._own is None else self._own

    @node.setter
    def node(self, value: Any) -> None:
        self._own = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Published:
        return self


@functools.cache
def _options(axis: str, method: str) -> DictConfig:
    return option_node(registry().get(axis, method))


@functools.cache
def publish() -> None:
    """Publish every axis, method and stage to Hydra. Call it before `hydra.main`; idempotent."""
    store = ConfigStore.instance()
    for (axis, name), source in registry().sources().items():
        node = Published(axis, name, provider=str(source))
        store.repo.setdefault(axis, {})[node.name] = node
    store.store(name="harness_root", node=root_node(), provider="harness")
    store.store(name="harness_mounts", node=OmegaConf.create({"defaults": _mounts()}), provider="harness")
    Plugins.instance().register(PluginConf)


def _mounts() -> list[dict[str, str | list[str] | None]]:
    """Defaults that conf/config.yaml cannot state: axes of plugins, and training axes per stage (null)."""
    known = registry()
    added = [(name, axis) for name, axis in known.axes.items() if name not in BUILTIN]
    mounts: list[dict[str, str | list[str] | None]] = [
        {f"/{name}": list(axis.default) if isinstance(axis.default, tuple) else axis.default}
        for name, axis in added
    ]
    for stage in registry().stages:
        mounts += [
            {f"/{axis}@{stage_key(stage)}.{axis}": None}
            for axis in mounted_axes(stage)
            if not known.axes[axis].many
        ]
    return mounts
