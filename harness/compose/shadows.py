"""Two configs of one name: Hydra reads one of them and says nothing of the other, which its author meant."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigSource

from harness.errors import ConfigError
from harness.registry.known import registry

SEARCH_PATH = "hydra.searchpath"


def refuse_methods(overrides: Sequence[str]) -> None:
    """Refuse a file of a user's folder that is called like a method, e.g. `optimizer/adamw.yaml`.

    Raises: ConfigError that names it
    """
    for folder in _folders(overrides):
        for axis in registry().axes:
            for file in sorted((folder / axis).glob("*.yaml")):
                if file.stem in registry().methods(axis):
                    raise ConfigError(
                        f"{file} is called like the method {axis}={file.stem}, and would replace its "
                        "options; rename it, or set them in an experiment"
                    )


def refuse_choices(choices: Mapping[str, Any], sources: Iterable[Mapping[str, str]]) -> None:
    """Refuse a choice (`experiment: own`) that more than one folder has a file for.

    `sources` are those of a composition: `path`, `schema` (`file`, `pkg`, ...) and `provider` of each.
    Raises: ConfigError that names both
    """
    folders = [
        _source(s["provider"], s["schema"], s["path"]) for s in sources if s["schema"] in ("file", "pkg")
    ]
    for group, chosen in choices.items():
        folder = group.partition("@")[0]
        if folder.startswith("hydra/"):
            continue
        for name in (chosen,) if isinstance(chosen, str) else chosen or ():
            config = f"{folder}/{name}"
            holders = [source.path.removeprefix("file://") for source in folders if source.is_config(config)]
            if len(holders) > 1:
                raise ConfigError(
                    f"{folder}={name} is a file in {holders[0]} and in {holders[1]}, of which only the first "
                    "would be read; rename one of them"
                )


def _folders(overrides: Sequence[str]) -> list[Path]:
    """Folders that a user added to the search path, by `--config-dir` or `hydra.searchpath`."""
    found: list[str] = []
    if GlobalHydra.instance().is_initialized():
        sources = GlobalHydra.instance().config_loader().get_sources()
        found += [s.path for s in sources if s.scheme() == "file" and s.provider != "main"]
    for text in overrides:
        if text.lstrip("+").startswith(f"{SEARCH_PATH}="):
            try:
                value = OverridesParser.create().parse_override(text).value()
            except HydraException:
                continue  # composing says what is wrong with it
            found += [str(path) for path in (value if isinstance(value, list) else [value])]
    return [Path(path.removeprefix("file://")) for path in found if "://" not in path.removeprefix("file://")]


@functools.cache
def _source(provider: str, schema: str, path: str) -> ConfigSource:
    return SourcesRegistry.instance().resolve(schema)(provider, f"{schema}://{path}")
