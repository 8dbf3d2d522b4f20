"""Options as Hydra's nodes and as plain values: the two forms of a Config besides the dataclass itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import ConfigError
from harness.method import Method


def option_node(method: type[Method]) -> DictConfig:
    """The typed node of a method's options, with its name under `method`."""
    node: DictConfig = writable(OmegaConf.structured(method.Config))
    OmegaConf.set_struct(node, False)
    node["method"] = method.name
    OmegaConf.set_struct(node, True)
    return node


def writable(node: Any) -> Any:
    """A structured node that takes overrides although its dataclass is frozen."""
    if OmegaConf.is_config(node):
        OmegaConf.set_readonly(node, None)
        if OmegaConf.get_type(node) is dict:
            OmegaConf.set_struct(node, False)  # a mapping takes new keys
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_missing():
            for key in node:
                writable(node._get_node(key))
    return node


def contained(node: Any) -> Any:
    """A node's content in plain containers, its interpolations filled in.

    Raises: ConfigError for one that names nothing, e.g. a variable that the environment does not have
    """
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {refusal(error)}") from error


def refusal(error: OmegaConfBaseException) -> str:
    """What OmegaConf says of a value, in one line and without its place."""
    return " ".join(str(error.msg or error).partition("\n    full_key:")[0].split())


def as_text(value: Any, **options: Any) -> str:
    """Plain values as JSON, keys in order: equal values give one text, whatever their keys are."""
    try:
        return json.dumps(value, sort_keys=True, **options)
    except TypeError:  # keys of several types have no order
        return json.dumps(_with_text_keys(value), sort_keys=True, **options)


def _with_text_keys(value: Any) -> Any:
    """Mappings with the keys that JSON would write."""
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else json.dumps(key): _with_text_keys(item)
            for key, item in value.items()
        }
    return [*map(_with_text_keys, value)] if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """Canonical plain form: enums by member name, tuples as lists, paths as strings, dataclasses as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {plain(key) if isinstance(key, Enum) else key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
