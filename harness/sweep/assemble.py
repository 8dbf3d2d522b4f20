"""Cells from a base composition by node replacement: Hydra composes each choice once, not each cell."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from harness.compose import Cell, load
from harness.registry import registry
from harness.sweep.grammar import Assignment, parse

Load = Callable[[tuple[str, ...]], tuple[DictConfig, dict[str, str | None]]]
"""`harness.compose.load`, or one that remembers what it composed."""
_SEEDING = ("seed", "base_seed", "seed_from")


class Assembler:
    """Composes cells that share a base, each the same as Hydra would compose it.

    An override of an axis replaces that axis's node, composed once for every method; a value is set where
    Hydra would set it. Whatever may change several nodes at once (presets, scales, `+`, `~`) is composed by
    Hydra with the base, once for every combination.
    """

    def __init__(self, base: Sequence[str], *, load: Load = load) -> None:
        self.base = tuple(base)
        self._load = load
        self._parsed: dict[str, Assignment] = {}
        self._composed: dict[tuple[str, ...], tuple[dict[str, Any], str]] = {}

    def cell(self, overrides: Sequence[str]) -> Cell:
        """The cell of the base and `overrides`; an override of the same key replaces the base's.

        Raises: ConfigError, PluginError
        """
        added = [self._parse(text) for text in overrides]
        keys = {item.key for item in added}
        kept = [item for item in (self._parse(text) for text in self.base) if item.key not in keys]
        everything = tuple(text for item in (*kept, *added) for text in item.overrides())
        axes = [item for item in added if _is_axis(item)]
        wide = [item for item in added if item not in axes and not _is_value(item)]
        root = tuple(text for item in (*kept, *wide) for text in item.overrides())
        composed, experiment = self._compose(root)
        raw = copy.deepcopy(composed)
        for item in axes:
            where = item.key.partition("@")[2] or item.key
            if _is_chosen(raw, where, item.value()):
                continue
            replaced, _ = self._compose((*root, *item.overrides()))
            _put(raw, where, copy.deepcopy(_get(replaced, where)))
        for item in added:
            if _is_value(item) and not _set_value(raw, item):
                node, choices = self._load(everything)
                return Cell(node, overrides=everything, experiment=choices.get("experiment") or "")
        return Cell(_resolved(raw), overrides=everything, experiment=experiment)

    def _parse(self, text: str) -> Assignment:
        if text not in self._parsed:
            (self._parsed[text],) = parse([text])
        return self._parsed[text]

    def _compose(self, overrides: tuple[str, ...]) -> tuple[dict[str, Any], str]:
        """The unresolved config of a composition by Hydra, and its experiment."""
        if overrides not in self._composed:
            node, choices = self._load(overrides)
            raw = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))
            self._composed[overrides] = raw, choices.get("experiment") or ""
        return self._composed[overrides]


def _resolved(raw: dict[str, Any]) -> dict[str, Any]:
    """The config with its interpolations resolved; where there are none, a typed node would cost 30 ms."""
    if not _interpolates(raw):
        return raw
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(raw), resolve=True))


def _interpolates(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_interpolates(item) for item in value.values())
    if isinstance(value, list):
        return any(_interpolates(item) for item in value)
    return isinstance(value, str) and "${" in value


def _is_axis(item: Assignment) -> bool:
    return item.key.partition("@")[0] in registry().axes


def _is_value(item: Assignment) -> bool:
    """Whether it sets one value: a dotted key, or a scalar of the root that is no config group."""
    plain = item.key[0] not in "+~" and "@" not in item.key and "/" not in item.key
    return plain and ("." in item.key or item.key in _SEEDING)


def _is_chosen(raw: dict[str, Any], where: str, method: object) -> bool:
    """Whether a node already is of this method, so that choosing it again changes nothing."""
    try:
        node = _get(raw, where)
    except KeyError:
        return False
    return isinstance(node, dict) and isinstance(method, str) and node.get("method") == method


def _set_value(raw: dict[str, Any], item: Assignment) -> bool:
    """Set a plain value; False where Hydra must do it: the key does not exist, or a mapping would merge."""
    try:
        current = _get(raw, item.key)
    except KeyError:
        return False
    value = item.value()
    if isinstance(current, dict | list) or isinstance(value, dict | list):
        return False
    _put(raw, item.key, value)
    return True


def _get(raw: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(raw, dict):
            raise KeyError(path)
        raw = raw[name]
    return raw


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        raw = raw[name]
    raw[last] = value
