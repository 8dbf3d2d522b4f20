"""The levels of an experiment's factors, as its records state them, and what each sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.records import label

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Factor -> level -> config key -> value."""


def level_settings(factors: Mapping[str, Any] | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Factor -> level -> the config keys it sets, with their values; a level without settings is none."""
    return {str(name): _levels(str(name), spec) for name, spec in (factors or {}).items()}


def _levels(name: str, spec: Any) -> dict[str, dict[str, Any]]:
    """`[values]` of the factor's own key, `{key: [values]}`, or `{label: {key: value}}`."""
    if not isinstance(spec, Mapping):
        return {label(value): {name: value} for value in spec}
    kept = {level: settings for level, settings in spec.items() if settings is not None}
    if len(kept) == 1 and isinstance(values := next(iter(kept.values())), list | tuple):
        key = _plain(str(next(iter(kept))))
        return {label(value): {key: value} for value in values}
    return {
        label(level): {_plain(str(key)): value for key, value in settings.items()}
        for level, settings in kept.items()
    }


def _plain(key: str) -> str:
    return key.lstrip("+~").replace("/", ".")


def factor_levels(factors: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Factor -> labels of its levels in the experiment's order."""
    return {name: list(levels) for name, levels in level_settings(factors).items()}
