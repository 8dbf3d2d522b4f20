"""Hydra's override grammar, as far as sweeps need it: reading and writing overrides."""

from __future__ import annotations

import copy
import enum
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.compose.hydra import options_of
from harness.compose.overrides import parser, read
from harness.errors import ConfigError

_SIMPLE = re.compile(r"[A-Za-z0-9_./:@%+-][A-Za-z0-9_./:@%+-]*( +[A-Za-z0-9_./:@%+-]+)*")

_VARIABLE = "${oc.env:"
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")

FIXED = "fixed"
"""A tag of Hydra's grammar: `key=tag(fixed,choice([value]))` is one value, which Hydra hands on unread.

It stands in a list because null is no choice there.
"""


@dataclass(frozen=True)
class Assignment:
    """One override: a key and the values it takes (several where it sweeps)."""

    key: str
    """`attention`, `optimizer.weight_decay`, `optimizer@align.optimizer`; with `+` or `~` where given."""
    values: tuple[str, ...]
    """Right-hand sides, as they would stand on a command line."""
    sweeps: bool

    def overrides(self) -> list[str]:
        """One command-line override for each value."""
        return [f"{self.key}={value}" if value or self.key[0] != "~" else self.key for value in self.values]

    def value(self) -> Any:
        """The only value, as Python has it."""
        (text,) = self.values
        return python_value(text)


def python_value(text: str) -> Any:
    """A right-hand side as Python has it."""
    value = _read_value(text)
    return copy.deepcopy(value) if isinstance(value, dict | list) else value


@functools.cache
def _read_value(text: str) -> Any:
    """Read once: a sweep sets the same values in many cells."""
    value = parser().parse_override(f"key={text}").value()
    return str(value.text) if isinstance(value, QuotedString) else value


def parse(overrides: Sequence[str]) -> list[Assignment]:
    """Read overrides.

    Raises: ConfigError where one is no override
    """
    return [_assignment(override) for override in read(overrides)]


def with_environment(item: Assignment) -> Assignment:
    """An override with its variables of the environment (`${oc.env:X}`) filled in: it means the same in any.

    Raises: ConfigError where the environment has no such variable
    """
    if not any("oc.env" in value for value in item.values):
        return item
    return replace(item, values=tuple(_filled(value, item.key) for value in item.values))


def _filled(text: str, key: str) -> str:
    written = re.sub(r"\\(.)", r"\1", text)
    if written.count("${") != written.count(_VARIABLE):  # the rest of the config is known when it is composed
        return text
    try:
        value = OmegaConf.to_container(OmegaConf.create({"value": python_value(text)}), resolve=True)
    except OmegaConfBaseException as error:
        detail = str(error).splitlines()[0]
        if variable := re.search(r"variable '([^']*)' not found", detail):
            name = variable[1]
            detail = (
                f"the environment has no variable {name}; set it, or give a default, ${{oc.env:{name},VALUE}}"
            )
        raise ConfigError(f"{key}={written}: {detail}") from error
    assert isinstance(value, dict)
    given = value["value"]
    return given if isinstance(given, str) and _NUMBER.fullmatch(given) else value_text(given)


def value_text(value: Any) -> str:
    """A value as the right-hand side of an override, quoted where it must be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        if _SIMPLE.fullmatch(value) and not _reads_otherwise(value):
            return value
        escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", value)
        return f"'{escaped}'"
    if isinstance(value, Sequence):
        return "[" + ",".join(value_text(item) for item in value) + "]"
    return str(value)


def label_text(value: Any) -> str:
    """A level's name in records and tables."""
    if isinstance(value, list | tuple):
        return "+".join(label_text(item) for item in value) or "none"
    if value is None:
        return "none"
    return value if isinstance(value, str) else value_text(value)


def unread(override: str) -> str:
    """An override that Hydra hands on as it stands, without composing it.

    Before it sweeps, Hydra composes what all cells share, where neither an option of a method that is swept
    nor a level of an experiment's factor has a place.
    """
    key, _, value = override.partition("=")
    if not value or parse([override])[0].sweeps:
        return override
    return f"{key}=tag({FIXED},choice([{value}]))"


def split_overrides(text: str) -> list[str]:
    """Overrides separated by commas outside brackets and quotes, as in `cell:a=b,c=[1,2]`."""
    found, depth, quote, current = [], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth and not quote:
            found.append(current.strip())
            current = ""
        else:
            current += letter
    return [item for item in [*found, current.strip()] if item]


def _assignment(override: Override) -> Assignment:
    key = override.get_key_element()
    if override.is_delete():
        key = key if key.startswith("~") else f"~{key}"
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line}: a sweep runs every value, and an interval has no end of them; list "
            "values or use range(start,stop,step), or tune it (`tune: {space: {...: {low: .., high: ..}}}`)"
        )
    value = override.value()
    if isinstance(value, Glob):
        return Assignment(key, _matching(override, value), True)
    if FIXED in (getattr(value, "tags", None) or ()):
        (held,) = override.sweep_string_iterator()
        return Assignment(key, (held[1:-1],), False)
    if override.is_sweep_override():
        values = tuple(override.sweep_string_iterator())
        if not values:
            raise ConfigError(f"{override.input_line} has no value; its start must be before its stop")
        return Assignment(key, values, True)
    return Assignment(key, (override.get_value_element_as_str(),), False)


def _matching(override: Override, glob: Glob) -> tuple[str, ...]:
    """What a `glob(...)` matches in its config group.

    Raises: ConfigError where it matches nothing
    """
    group = override.key_or_group
    known = options_of(group)
    found = tuple(glob.filter(known))
    if not known:
        raise ConfigError(
            f"{override.input_line}: glob(...) matches the choices of a config group, and {group} is none; "
            f"list what is meant, {group}=a,b"
        )
    if not found:
        raise ConfigError(f"{override.input_line} matches none of {group}: {', '.join(known)}")
    return found


def _reads_otherwise(text: str) -> bool:
    """Whether Hydra would read an unquoted text as something else than this text."""
    try:
        value = parser().parse_override(f"key={text}").value()
    except OverrideParseException:
        return True
    return not (isinstance(value, str) and value == text)
