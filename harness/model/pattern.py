"""Layers that differ: which methods each has, and which a model has in all; imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from harness.compose.typed import instance
from harness.errors import ConfigError
from harness.method import Choice
from harness.nodes import plain
from harness.registry.known import registry
from harness.spec import ModelSpec

PATTERN_AXES = ("attention", "position", "feed_forward")
"""Axes on which layers may differ."""


def layer_choices(spec: ModelSpec, choices: Mapping[str, Choice], layer: int) -> dict[str, Choice]:
    """The choices of one layer: those of the model, but for what its place in `layer_pattern` names.

    Raises: ConfigError for an axis on which layers cannot differ, an unknown method or option
    """
    chosen = dict(choices)
    if not spec.layer_pattern:
        return chosen
    index = layer % len(spec.layer_pattern)
    for axis, node in spec.layer_pattern[index].items():
        where = f"model.layer_pattern.{index}.{axis}"
        if axis not in PATTERN_AXES:
            raise ConfigError(f"{where}: layers may differ in {', '.join(PATTERN_AXES)}, not in {axis}")
        options = dict(node)
        method, stated = chosen[axis].method, {}
        if "method" in options:
            method = registry().get(axis, str(options.pop("method")))
        if method is chosen[axis].method:
            stated = plain(chosen[axis].config)
        config = instance(method.Config, {**stated, **options}, where=where)
        chosen[axis] = Choice(axis=axis, method=method, config=config)
    return chosen


def layer_spec(spec: ModelSpec, choices: Mapping[str, Choice], chosen: Mapping[str, Choice]) -> ModelSpec:
    """The shape as the attention of one layer changes it, where that is not the model's own."""
    attention = chosen["attention"]
    if attention == choices["attention"]:
        return spec
    return attention.method.modify_spec(attention.config, dataclasses.replace(spec, rotary_dim=None))


def unique(choices: Iterable[Choice]) -> list[Choice]:
    """Each choice once, in order."""
    found: list[Choice] = []
    for choice in choices:
        if choice not in found:
            found.append(choice)
    return found


def every_choice(spec: ModelSpec, choices: Mapping[str, Choice]) -> Iterator[Choice]:
    """What the layers of a pattern choose, each choice once."""
    if all(axis in choices for axis in PATTERN_AXES):
        of_layers = [layer_choices(spec, choices, i) for i in range(len(spec.layer_pattern))]
        yield from unique(chosen[axis] for chosen in of_layers for axis in PATTERN_AXES)
