"""What varies in a sweep: the factors of its experiment, as the command line replaces and narrows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.compose import Experiment
from harness.errors import ConfigError, UnknownNameError
from harness.plan.grammar import Assignment, label_text, parse, python_value, value_text, with_environment
from harness.registry.known import registry
from harness.stated import levels_of


@dataclass(frozen=True)
class Level:
    """One value of a factor: its name in tables, and the overrides that set it."""

    label: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Factor:
    """Something that varies between the cells of a sweep."""

    name: str
    levels: tuple[Level, ...]

    def sets(self) -> set[str]:
        """Config keys that any level sets."""
        return {key for level in self.levels for key in (_key(text) for text in level.overrides)}

    def level(self, label: Any) -> Level:
        """The level of a label.

        Raises: UnknownNameError
        """
        for level in self.levels:
            if level.label == label_text(label):
                return level
        raise UnknownNameError(
            what=f"level of factor {self.name}", name=label_text(label), known=[v.label for v in self.levels]
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """A sweep's command line, taken apart."""

    base: tuple[str, ...]
    """Overrides that all cells share."""
    swept: tuple[Assignment, ...]
    """Overrides with several values, in order."""
    plain: tuple[Assignment, ...]
    """All others: each may replace a factor's levels."""


def request(arguments: Sequence[str]) -> Request:
    """Take a command line apart.

    Raises: ConfigError where it sweeps what cannot be swept, or says one thing twice
    """
    found = [with_environment(item) for item in parse(arguments)]
    swept = tuple(item for item in found if item.sweeps)
    for item in swept:
        if item.key.lstrip("+") == "experiment":
            raise ConfigError(
                f"experiment={','.join(item.values)}: one sweep answers one question; start a sweep for each"
            )
    for item in found:
        others = [other for other in found if other.key == item.key and other.values != item.values]
        if others:
            raise ConfigError(
                f"{item.key} is given twice, as {','.join(item.values)} and as {','.join(others[0].values)}; "
                "drop one of them"
            )
    plain = tuple(item for item in found if not item.sweeps)
    return Request(base=tuple(text for item in plain for text in item.overrides()), swept=swept, plain=plain)


def refuse_repeated(item: Assignment) -> None:
    """Refuse a value that a sweep names twice.

    Raises: ConfigError
    """
    text = f"{item.key}={','.join(item.values)}"
    refuse_twice([python_value(value) for value in item.values], where=text)


def refuse_twice(values: Sequence[Any], *, where: str) -> None:
    """Refuse a value that stands twice among those which `where` names.

    Raises: ConfigError
    """
    for i, value in enumerate(values):
        if value in values[:i] or label_text(value) in map(label_text, values[:i]):
            raise ConfigError(
                f"{where} names {label_text(value)} twice; each value stands once: a cell is never run again"
            )


def factors(experiment: Experiment, asked: Request) -> list[Factor]:
    """The factors of a sweep: the experiment's, with levels replaced or chosen by the command line.

    Raises: ConfigError for a level that does not exist, or an option that only some levels can take
    """
    found = {name: _factor(name, value) for name, value in experiment.factors.items()}
    changes = [item for item in asked.swept if item.key != "seed"]
    changes += [item for item in asked.plain if item.key in found or _sets_factor(item, found.values())]
    for item in changes:
        factor = found.get(item.key)
        if factor is not None:
            chosen = _named(item, factor) or _levels(item, factor)
            if chosen is not None:
                refuse_twice([level.label for level in chosen], where=f"{item.key}={','.join(item.values)}")
                found[item.key] = replace(factor, levels=chosen)
                continue
        refuse_repeated(item)
        name = next((f.name for f in found.values() if item.key in f.sets()), item.key)
        found[name] = changed = _changed(found.get(name), name, item)
        if item.sweeps and item.key not in changed.sets():
            found[item.key] = _swept(item.key, item)  # beside the factor, whose levels set it no more
    return list(found.values())


def is_key(name: str) -> bool:
    """Whether a name can be a config key, as far as its first part says."""
    from harness.compose.schema import root_keys

    head = name.lstrip("+~").partition("@")[0].partition(".")[0].partition("/")[0]
    return head in registry().axes or head in root_keys()


def _changed(factor: Factor | None, name: str, item: Assignment) -> Factor:
    """A factor whose key the command line sets.

    What the factor varies is replaced. A choice that all levels share, or that some leave out (`none`), and
    an option beside what it varies, hold in all levels that have it: the key is taken out of the levels, so
    that the value of the command line stays, or each of its values.
    Raises: ConfigError where levels differ by this option alone
    """
    own = _swept(name, item)
    if factor is None or (item.sweeps and "." not in item.key):
        return own
    without = tuple(replace(level, overrides=_without(level, item.key)) for level in factor.levels)
    values = [_value_of(level, item.key) for level in factor.levels]
    if "." in item.key:
        if factor.sets() == {item.key}:
            return own
        alike = Counter(level.overrides for level in without)
        same = [level.label for level in without if alike[level.overrides] > 1]
        if not same:
            return replace(factor, levels=without)
        typed = f"{item.key}={','.join(item.values)}"
        raise ConfigError(
            f"{typed}: levels of factor {name} differ by it alone ({', '.join(same)}); "
            f"choose one of them, '{name}=\"{same[0]}\"', or replace them with methods, "
            f"{item.key.partition('.')[0]}=... {typed}"
        )
    present = [i for i, value in enumerate(values) if value != "none"]
    if all(values[i] is None for i in present):
        return factor
    if len(values) > 1 and len(set(values)) == 1:
        return replace(factor, levels=without)
    if len(values) > len(present) == 1 and factor.levels[present[0]].label != values[present[0]]:
        levels = [without[i] if i in present else level for i, level in enumerate(factor.levels)]
        return replace(factor, levels=tuple(levels))
    return own


def _swept(name: str, item: Assignment) -> Factor:
    """A factor of the values that the command line gives a key."""
    return Factor(name, tuple(Level(_unquoted(value), (f"{item.key}={value}",)) for value in item.values))


def _without(level: Level, key: str) -> tuple[str, ...]:
    """A level's overrides without a key and, where it is a choice, without the options of what it chose."""
    return tuple(
        text for text in level.overrides if _key(text) != key and not _key(text).startswith(f"{key}.")
    )


def _value_of(level: Level, key: str) -> str | None:
    return next((text.partition("=")[2] for text in level.overrides if _key(text) == key), None)


def chosen(experiment: Experiment, asked: Request) -> list[Assignment]:
    """What of a command line chooses a factor's levels by name, and is no config key itself."""
    found = {name: _factor(name, value) for name, value in experiment.factors.items()}
    return [item for item in (*asked.plain, *asked.swept) if _chooses(item, found)]


def _factor(name: str, value: Any) -> Factor:
    """A factor from its YAML: values of the key `name`, {key: [values]}, or {label: {key: value}}.

    A label whose value is null is left out, as a scale's overlay says of one that cannot be there.
    """
    found = levels_of(name, value)
    refuse_twice([label for label, _ in found], where=f"factors.{name}")
    return Factor(
        name,
        tuple(
            Level(label_text(label), tuple(f"{key}={value_text(v)}" for key, v in keys.items()))
            for label, keys in found
        ),
    )


def _chooses(item: Assignment, found: Mapping[str, Factor]) -> bool:
    """Whether an override names a factor and levels of it."""
    factor = found.get(item.key)
    return factor is not None and (_named(item, factor) or _levels(item, factor)) is not None


def _named(item: Assignment, factor: Factor) -> tuple[Level, ...] | None:
    """The levels of a factor that an override names, all of them by their labels; else None.

    The command line takes a label with commas apart; here it is put together again.
    """
    said = [_unquoted(value) for value in item.values]
    by_label = {level.label: level for level in factor.levels}
    labels = said if by_label.keys() >= {*said} else _joined(said, list(by_label))
    return None if labels is None else tuple(by_label[label] for label in labels)


def _joined(said: Sequence[str], known: Sequence[str]) -> list[str] | None:
    """Labels of which these are the parts between commas, in order; None where they are not."""
    if not said:
        return []
    for end in range(len(said), 0, -1):
        for label in known:
            parts = [part.strip() for part in label.split(",")]
            if list(said[:end]) in (parts, [label]):
                rest = _joined(said[end:], known)
                if rest is not None:
                    return [label, *rest]
    return None


def _levels(item: Assignment, factor: Factor) -> tuple[Level, ...] | None:
    """Levels of a sweep of which some are the factor's, by label, and others values of its key; else None.

    Raises: UnknownNameError for what is no level, where the factor's name is no key
    """
    by_label = {level.label: level for level in factor.levels}
    said = [_unquoted(value) for value in item.values]
    if not is_key(item.key):
        return tuple(factor.level(label) for label in said)
    if not item.sweeps or by_label.keys().isdisjoint(said):
        return None
    own = (Level(_unquoted(value), (f"{item.key}={value}",)) for value in item.values)
    return tuple(by_label.get(label, level) for label, level in zip(said, own, strict=True))


def _sets_factor(item: Assignment, found: Iterable[Factor]) -> bool:
    return any(item.key in factor.sets() for factor in found)


def _key(override: str) -> str:
    return override.partition("=")[0]


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else re.sub(r"\\(.)", r"\1", text)
