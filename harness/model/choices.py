"""Choices on the model axes as plain data, for a checkpoint's config.json, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args, get_type_hints

from harness.axes import MODEL_AXES
from harness.errors import ConfigError
from harness.method import Choice


def to_plain(choices: Mapping[str, Choice]) -> dict[str, dict[str, Any]]:
    """{axis: {method: name, option: value}} for the six model axes.

    Raises: ConfigError naming the axis without a choice
    """
    missing = [axis for axis in MODEL_AXES if axis not in choices]
    if missing:
        raise ConfigError(f"a model needs a choice on every model axis; missing: {', '.join(missing)}")
    return {axis: plain_node(choices[axis]) for axis in MODEL_AXES}


def plain_node(choice: Choice) -> dict[str, Any]:
    """{method: name, option: value} of one choice."""
    return {"method": choice.method.name, **_plain(dataclasses.asdict(choice.config))}


def from_plain(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Choice]:
    """The choices that `to_plain` wrote.

    Raises: UnknownNameError, PluginError where the plugin of a method is not installed
    """
    from harness.registry.known import registry

    choices = {}
    for axis, node in methods.items():
        options = dict(node)
        method = registry().get(axis, options.pop("method"))
        choices[axis] = Choice(axis=axis, method=method, config=typed(method.Config, options))
    return choices


def typed(config: type[Any], options: Mapping[str, Any]) -> Any:
    """A Config instance from plain values; enums by member name."""
    hints = get_type_hints(config)
    values = {}
    for name, value in options.items():
        kinds = [kind for kind in (hints[name], *get_args(hints[name])) if isinstance(kind, type)]
        enum = next((kind for kind in kinds if issubclass(kind, Enum)), None)
        values[name] = enum[value] if enum is not None and isinstance(value, str) else value
    return config(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
