"""Publishing: every method's Config becomes `<axis>=<name>` in Hydra's ConfigStore."""

from __future__ import annotations

import functools

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from harness.axes import BUILTIN
from harness.compose.schema import mounted_axes, root_node, stage_key
from harness.nodes import option_node
from harness.registry.known import registry


class PluginConf(SearchPathPlugin):
    """Adds the conf folders that plugins ship to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for path in registry().conf:
            search_path.append(provider="harness plugin", path=path)


@functools.cache
def publish() -> None:
    """Publish every axis, method and stage to Hydra. Call it before `hydra.main`; idempotent."""
    store = ConfigStore.instance()
    for method in registry().all():
        store.store(
            group=method.axis,
            name=method.name,
            node=option_node(method),
            package=f"{method.axis}.{method.name}" if method.many else method.axis,
            provider=str(registry().source(method)),
        )
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
