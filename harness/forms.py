"""Forms: what JSON or YAML must hold, stated as type hints, and held against it once, where it is read.

A form is a plain type, `Any`, a union, `Literal`, `list[F]` or `tuple[F, ...]`, `tuple[F, G]` (a list of so
many), `dict[str, F]` or `Mapping[str, F]`, or a `TypedDict` or dataclass (a mapping with these keys, and
perhaps others). An `int` is a `float` too; a truth value is neither.
"""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

_WORDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    types.NoneType: "null",
}
"""How kinds of values are called."""
_ACCEPTS: dict[type, Any] = {dict: (dict, Mapping), list: (list, tuple), float: (float, int)}
"""Python's types of a kind, where they are more than itself."""
_SHOWN = 40
"""Characters of a wrong value that are worth showing."""

Misfit = tuple[tuple[object, ...], str]
"""Where in a value, innermost key first, and what is wrong there."""
Check = Callable[[Any], Misfit | None]


def misfit(value: Any, form: Any, at: str = "") -> str:
    """Where a value does not have a form, in words: `seeds.0 is text ('x'), not an integer`; empty where it
    has it.

    `at` is how the value itself is called, before its parts.
    """
    found = _check(form)(value)
    if found is None:
        return ""
    place, text = found
    return f"{'.'.join(map(str, (*filter(None, [at]), *reversed(place)))) or 'it'} {text}"


@functools.cache
def _check(form: Any) -> Check:
    """The check of a form, put together once: a thousand records are held against theirs."""
    if form is Any:
        return lambda value: None
    if typing.get_origin(form) is typing.Literal:
        return _of_choices(form)
    if _is_union(form):
        return _of_union(form)
    plain, arguments = _of_kind(form), typing.get_args(form)
    if _names_keys(form):
        return _of_keys(form, plain)
    if typing.get_origin(form) is tuple and arguments[-1] is not ...:
        return _of_places(plain, arguments)
    if _kind(form) is list and arguments:
        return _of_parts(plain, arguments[0], enumerate)
    if _kind(form) is dict and arguments:
        return _of_parts(plain, arguments[1], lambda value: value.items())
    return plain


def _of_kind(form: Any) -> Check:
    """That a value is of a form's own kind, whatever its parts are."""
    kind = _kind(form)
    usual = (kind, int) if kind is float else (kind,)
    # What JSON and YAML give is of a kind exactly.
    return lambda value: None if type(value) in usual or _is(value, kind) else ((), _said(value, form))


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, _ACCEPTS.get(kind, kind)) and isinstance(value, bool) is (kind is bool)


def _of_choices(form: Any) -> Check:
    choices = typing.get_args(form)
    # By type too: 1 is no true.
    allowed = {(type(choice), choice) for choice in choices}
    return lambda value: (
        None if isinstance(value, str | int) and (type(value), value) in allowed else ((), _said(value, form))
    )


def _of_union(form: Any) -> Check:
    """One of several forms; of a list or mapping where one of them is such, what is wrong inside."""
    arguments = typing.get_args(form)
    branches = [(_check(branch), _kind(branch)) for branch in arguments]
    plain = [branch for branch in arguments if branch in _WORDS]
    usual = frozenset([*plain, *([int] if float in plain else [])])

    def check(value: Any) -> Misfit | None:
        if type(value) in usual:
            return None
        nearest: Misfit | None = None
        for check_branch, kind in branches:
            found = check_branch(value)
            if found is None:
                return None
            if kind in (dict, list) and _is(value, kind):
                nearest = nearest or found
        return nearest or ((), _said(value, form))

    return check


def _of_parts(plain: Check, inner: Any, parts: Callable[[Any], Any]) -> Check:
    """A list or mapping whose parts all have one form."""
    of_part = _check(inner)
    if inner is Any:
        return plain

    def check(value: Any) -> Misfit | None:
        wrong = plain(value)
        if wrong is not None:
            return wrong
        for key, item in parts(value):
            found = of_part(item)
            if found is not None:
                return (*found[0], key), found[1]
        return None

    return check


def _of_places(plain: Check, forms: tuple[Any, ...]) -> Check:
    """A list of as many parts as forms."""
    checks = [_check(form) for form in forms]

    def check(value: Any) -> Misfit | None:
        wrong = plain(value)
        if wrong is not None:
            return wrong
        if len(value) != len(checks):
            return (), f"is a list of {len(value)}, not of {len(checks)}"
        for place, (of_part, item) in enumerate(zip(checks, value, strict=True)):
            if (found := of_part(item)) is not None:
                return (*found[0], place), found[1]
        return None

    return check


def _of_keys(form: Any, plain: Check) -> Check:
    """A mapping with the keys of a TypedDict or dataclass."""
    hints = typing.get_type_hints(form)
    needed = form.__required_keys__ if typing.is_typeddict(form) else _without_default(form)
    checks = [(key, _check(hint)) for key, hint in hints.items() if hint is not Any]

    def check(value: Any) -> Misfit | None:
        wrong = plain(value)
        if wrong is not None:
            return wrong
        if not needed <= value.keys():
            return (), f"lacks {', '.join(key for key in hints if key in needed and key not in value)}"
        for key, of_part in checks:
            if key in value and (found := of_part(value[key])) is not None:
                return (*found[0], key), found[1]
        return None

    return check


def _names_keys(form: Any) -> bool:
    return typing.is_typeddict(form) or is_dataclass(form)


def _without_default(form: Any) -> frozenset[str]:
    return frozenset(f.name for f in fields(form) if f.default is MISSING and f.default_factory is MISSING)


def _is_union(form: Any) -> bool:
    return typing.get_origin(form) in (typing.Union, types.UnionType)


def _kind(form: Any) -> Any:
    """The plain type behind a form."""
    if typing.get_origin(form) is typing.Literal:
        return type(typing.get_args(form)[0])
    kind = dict if _names_keys(form) else typing.get_origin(form) or form
    return {Mapping: dict, tuple: list}.get(kind, kind)


def _said(value: Any, form: Any) -> str:
    branches = typing.get_args(form) if _is_union(form) else (form,)
    wanted = " or ".join(dict.fromkeys(map(_wanted, branches)))
    own = next((word for kind, word in _WORDS.items() if _is(value, kind)), type(value).__name__)
    shown = f" ({value!r})" if isinstance(value, str | int | float) and len(repr(value)) <= _SHOWN else ""
    return f"is {own}{shown}, not {wanted}"


def _wanted(form: Any) -> str:
    """What a form takes, in words."""
    if typing.get_origin(form) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(form)))
    return _WORDS[_kind(form)]
