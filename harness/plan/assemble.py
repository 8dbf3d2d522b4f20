"""Cells from a base composition by node replacement: Hydra composes each choice once, not each cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from harness.compose import Cell, load
from harness.compose.arguments import experiment_name
from harness.compose.settle import put, typed_keys, value_at
from harness.compose.shared import once, shared
from harness.errors import HarnessError
from harness.nodes import contained
from harness.plan.grammar import Assignment, parse
from harness.registry.known import registry

Load = Callable[[tuple[str, ...]], tuple[DictConfig, dict[str, str | None]]]
"""`harness.compose.load`, or one that remembers what it composed."""
_SEEDING = ("seed", "base_seed", "seed_from")


class Composed(NamedTuple):
    """An unresolved config, and what was chosen in each config group."""

    raw: dict[str, Any]
    choices: Mapping[str, str | None]


class Assembler:
    """Composes cells that share a base, each the same as Hydra would compose it.

    An override of an axis replaces that axis's node, composed once for every method; a value is set where
    Hydra would set it. Whatever may change several nodes at once (presets, scales, `+`, `~`) is composed by
    Hydra with the base, once for every combination. An option of the base that belongs to a replaced node is
    set after it: the method that it is meant for may be that of the cell alone.
    """

    def __init__(
        self, base: Sequence[str], *, typed: Collection[str] | None = None, load: Load = load
    ) -> None:
        """`typed` names the options that the user stated, which no scale bounds; None: all overrides."""
        self.base = tuple(base)
        self.typed = typed
        self._load = load
        self._parsed: dict[str, Assignment] = {}
        self._composed: dict[tuple[str, ...], Composed] = {}
        self._replaced: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {}

    def foresee(self, cells: Iterable[Sequence[str]]) -> None:
        """Compose the axis nodes that these cells will need, one choice of every axis in each composition.

        An axis's choice changes no other axis's node, so one composition gives the nodes of all of them.
        """
        wanted: dict[tuple[str, ...], dict[str, list[Assignment]]] = {}
        for overrides in cells:
            _, axes, _, root = self._split(overrides)
            for item in axes:
                known = wanted.setdefault(root, {}).setdefault(item.key, [])
                if item not in known and not self._is_chosen(root, item):
                    known.append(item)
        for root, by_key in wanted.items():
            for items in itertools.zip_longest(*by_key.values()):
                together = [item for item in items if item is not None]
                if len(together) < 2:
                    continue  # nothing to share; composed when it is needed
                try:
                    composed = self._compose(
                        (*root, *(text for item in together for text in item.overrides()))
                    )
                except HarnessError:
                    continue  # composed alone, whichever is at fault is named
                for item in together:
                    self._replaced[root, item.overrides()[0]] = _filled(composed, item)

    def cell(self, overrides: Sequence[str]) -> Cell:
        """The cell of the base and `overrides`; an override of the same key replaces the base's.

        What a method refuses is kept in `Cell.faults`.
        Raises: ConfigError, PluginError
        """
        added, axes, late, root = self._split(overrides)
        everything = self.overrides(overrides)
        composed = self._compose(root)
        raw = dict(composed.raw)
        for item in axes:
            if not self._is_chosen(root, item):
                put(raw, _where(item).split("."), self._node(root, item))
        for item in (*late, *added):
            if item in axes or (item not in late and not _is_value(item)):
                continue
            if not (_is_value(item) and _set_value(raw, item)):
                node, choices = self._load(everything)
                return self._made(node, everything, choices.get("experiment"))
        return self._made(_resolved(raw), everything, composed.choices.get("experiment"))

    def overrides(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """All overrides of a cell: those of the base that it does not replace, and its own.

        An option is left out where the cell's own choice leaves out what it is for.
        """
        added = [self._parse(text) for text in overrides]
        keys = {item.key for item in added}
        kept = [item for item in (self._parse(text) for text in self.base) if item.key not in keys]
        return tuple(
            text for item in (*kept, *added) if not _is_idle(item, added) for text in item.overrides()
        )

    def _made(self, node: Any, overrides: tuple[str, ...], experiment: str | None) -> Cell:
        typed = typed_keys(overrides) if self.typed is None else self.typed
        name = experiment_name(experiment)
        return Cell(node, overrides=overrides, experiment=name, typed=typed, keep_faults=True)

    def _split(
        self, overrides: Sequence[str]
    ) -> tuple[list[Assignment], list[Assignment], list[Assignment], tuple[str, ...]]:
        """All overrides, those that choose on an axis, options of the base for what these choose, and what
        Hydra composes below them."""
        added = [self._parse(text) for text in overrides]
        keys = {item.key for item in added}
        kept = [item for item in (self._parse(text) for text in self.base) if item.key not in keys]
        axes = [item for item in added if is_axis(item.key)]
        late = [item for item in kept if belongs_to(item.key, {_where(axis) for axis in axes})]
        wide = [item for item in added if item not in axes and not _is_value(item)]
        below = (item for item in (*kept, *wide) if item not in late)
        used = [item for item in late if not _is_idle(item, added)]
        return added, axes, used, tuple(text for item in below for text in item.overrides())

    def _is_chosen(self, root: tuple[str, ...], item: Assignment) -> bool:
        """Whether a composition chooses this already."""
        return self._compose(root).choices.get(item.key) == item.values[0]

    def _node(self, root: tuple[str, ...], item: Assignment) -> Any:
        """The node of a choice on top of a composition."""
        (text,) = item.overrides()
        if (root, text) not in self._replaced:
            self._replaced[root, text] = _filled(self._compose((*root, text)), item)
        return self._replaced[root, text]

    def _parse(self, text: str) -> Assignment:
        if text not in self._parsed:
            (self._parsed[text],) = parse([text])
        return self._parsed[text]

    def _compose(self, overrides: tuple[str, ...]) -> Composed:
        """A composition by Hydra, once."""
        if overrides not in self._composed:
            node, choices = self._load(overrides)
            whole = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))
            raw = {key: shared(value) for key, value in whole.items()}
            self._composed[overrides] = Composed(raw, choices)
        return self._composed[overrides]


def _resolved(raw: dict[str, Any]) -> dict[str, Any]:
    """The config with its interpolations resolved; where there are none, a typed node would cost 30 ms."""
    if not _interpolates(raw):
        return raw
    return cast(dict[str, Any], contained(OmegaConf.create(raw)))


def _interpolates(value: Any) -> bool:
    return once(value, ("interpolates",), lambda: _has_interpolation(value))


def _has_interpolation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_interpolates(item) for item in value.values())
    if isinstance(value, list):
        return any(_interpolates(item) for item in value)
    return isinstance(value, str) and "${" in value


def _where(item: Assignment) -> str:
    """The path of the node that an axis's choice fills."""
    return item.key.partition("@")[2] or item.key


def _filled(composed: Composed, item: Assignment) -> Any:
    """The node that an axis's choice has filled."""
    node = value_at(composed.raw, _where(item).split("."))
    assert node is not MISSING, f"{item.key} fills nothing"
    return node


def is_axis(key: str) -> bool:
    """Whether a key chooses on an axis: `peft`, `optimizer@align.optimizer`."""
    return key.partition("@")[0] in registry().axes


def belongs_to(key: str, nodes: Collection[str]) -> bool:
    """Whether a key is an option within one of these nodes."""
    return any(key.lstrip("+~").startswith(f"{node}.") for node in nodes)


def _is_idle(option: Assignment, added: Sequence[Assignment]) -> bool:
    """Whether a cell's own overrides leave out what an option is for: its axis, or its method of a list."""
    for item in added:
        if not is_axis(item.key) or not belongs_to(option.key, {_where(item)}):
            continue
        axis = registry().axes[item.key.partition("@")[0]]
        if axis.many:
            return option.key.removeprefix(f"{_where(item)}.").partition(".")[0] not in _names(item)
        return axis.optional and _names(item) == ["none"]
    return False


def _names(item: Assignment) -> list[str]:
    """The methods that an axis's override names."""
    value = item.value()
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]


def _is_value(item: Assignment) -> bool:
    """Whether it sets one value: a dotted key, or a scalar of the root that is no config group."""
    plain = item.key[0] not in "+~" and "@" not in item.key and "/" not in item.key
    return plain and ("." in item.key or item.key in _SEEDING)


def _set_value(raw: dict[str, Any], item: Assignment) -> bool:
    """Set a plain value; False where Hydra must do it: the key does not exist, or a mapping would merge."""
    path = item.key.split(".")
    current, value = value_at(raw, path), item.value()
    if current is MISSING or isinstance(current, dict | list) or isinstance(value, dict | list):
        return False
    put(raw, path, value)
    return True
