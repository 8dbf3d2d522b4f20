"""From config nodes to frozen, checked dataclass instances, and back to a canonical plain form."""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from harness.errors import ConfigError, HarnessError, ImpossibleValueError, UnknownNameError
from harness.method import SIGNED, Choice
from harness.nodes import as_text, plain, refusal, writable

T = TypeVar("T")

_CACHE: dict[tuple[type[Any], str], Any] = {}


def instance(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of a Config dataclass from plain values; equal values give the same instance.

    Raises: ConfigError naming the key, for an unknown key or a wrong type; ImpossibleValueError for what is
        missing or what `__post_init__` refuses
    """
    content = as_text(plain(values))
    found = _CACHE.get((kind, content))
    if found is None:
        found = _CACHE[kind, content] = _convert(kind, values, where)
    return typing.cast(T, found)


def choose(axis: str, name: str, options: Mapping[str, Any], *, where: str) -> Choice:
    """The choice of a method by name, for one that is made of others.

    Raises: UnknownNameError or ConfigError where there is no such method or option
    """
    from harness.registry.known import registry

    method = registry().get(axis, name)
    return Choice(axis=axis, method=method, config=instance(method.Config, options, where=where))


def _convert(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        node = OmegaConf.merge(writable(OmegaConf.structured(kind)), OmegaConf.create(dict(values)))
        checked = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        raise UnknownNameError(what=f"option of {where}", name=key, known=known) from error
    except MissingMandatoryValue as error:
        raise ImpossibleValueError(f"{where}.{error.full_key} must be given") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}.{error.full_key}: {refusal(error)}") from error
    assert isinstance(checked, dict)
    try:
        built = _build(kind, checked)
        _check_numbers(built)
        return typing.cast(T, built)
    except HarnessError as error:
        raise ImpossibleValueError(_placed(str(error), kind, where)) from error
    except (ValueError, TypeError) as error:
        raise ImpossibleValueError(f"{where}: {error}") from error


def _check_numbers(config: Any, place: str = "") -> None:
    """Refuse numbers that are not finite, and numbers below zero where nothing says that they may be.

    Raises: ConfigError naming the option within its Config
    """
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            _check_numbers(value, f"{place}{f.name}.")
        for option, number in _numbers(value, f"{place}{f.name}"):
            if not math.isfinite(number):
                raise ConfigError(f"{option}={number} must be a finite number")
        if isinstance(value, int | float) and value < 0 and not _takes_negative(f):
            raise ConfigError(f"{place}{f.name}={value} must not be negative")


def _takes_negative(option: Field[Any]) -> bool:
    """Whether an option is declared with `signed()`, or its default is a number below zero."""
    default = option.default
    return SIGNED in option.metadata or (isinstance(default, int | float) and default < 0)


def _numbers(value: Any, option: str) -> Iterator[tuple[str, float]]:
    """Every number of an option by its place: `max_length`, `weights.code`, `fractions.0`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{option}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _numbers(item, f"{option}.{place}")
    elif isinstance(value, int | float):
        yield option, value


def _placed(message: str, kind: type[Any], where: str) -> str:
    """A message that begins with an option of a Config, which knows no owner, with the whole key."""
    first = re.match(r"\w+", message)
    own = first is not None and first[0] in {f.name for f in fields(kind)}
    return f"{where}.{message}" if own else message


def _build(hint: Any, value: Any) -> Any:
    """A checked plain value as what the field's type hint says (tuples, enums, nested dataclasses)."""
    if value is None:
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return _build(inner[0], value) if len(inner) == 1 else value
    if is_dataclass(hint) and isinstance(value, dict):
        hints = _hints(hint)  # type: ignore[arg-type]
        return hint(**{key: _build(hints[key], item) for key, item in value.items()})  # type: ignore[operator]
    if origin is tuple:
        return tuple(_build(arguments[0] if arguments else Any, item) for item in value)
    if origin is list:
        return [_build(arguments[0], item) for item in value]
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    return value


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
