"""What a method says of itself, as plain data: for `list`, `show`, the docs and the conformance suites."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import typing
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import PluginError
from harness.method import Method, summary
from harness.nodes import plain
from harness.registry.known import Registry
from harness.stage import Stage

LABELS = ("Paper", "Shapes", "Units", "State", "Error", "Differs", "Raises")
"""Labelled lines of a docstring, in the order they are shown."""


def describe(method: type[Method], known: Registry) -> dict[str, Any]:
    """One method as JSON: who ships it, where it comes from, its options, what it needs and changes."""
    source = known.source(method)
    return {
        "axis": method.axis,
        "name": method.name,
        "package": source.package,
        "version": source.version,
        "summary": method.summary(),
        "paper": method.labelled("Paper") or "",
        "status": "ok",
        "module": source.module,
        "notes": {label: text for label in LABELS if (text := paragraph(method, label))},
        "options": options(method.Config),
        "extra": method.extra,
        "moves_facts": sorted(_moved(method)),
        **{
            word: sorted(getattr(method, word))
            for word in ("requires", "conflicts", "provides", "changes", "after")
        },
    }


def describe_stage(stage: type[Stage], known: Registry) -> dict[str, Any]:
    """A stage as JSON: who ships it, what it reads and makes, its options."""
    source = known.stage_source(stage.name)
    axes = [name for name, axis in known.axes.items() if name in stage.axes or stage.name in axis.stages]
    return {
        "name": stage.name,
        "key": f"{stage.name}_stage" if stage.name in known.axes else stage.name,
        "package": source.package,
        "version": source.version,
        "summary": summary(stage),
        "axes": axes,
        "needs": list(stage.needs),
        "may_need": list(stage.may_need),
        "produces": stage.produces,
        "options": options(stage.Config),
        "decontaminates": _decontaminates(stage),
        "moves_facts": [list(pair) for pair in _moving(stage)],
    }


def _moved(method: type[Method]) -> frozenset[str]:
    """Raises: PluginError for anything but a frozenset of words"""
    found: object = method.moves_facts
    if not isinstance(found, frozenset) or not all(isinstance(word, str) for word in found):
        raise PluginError(f"{method.__qualname__}.moves_facts={found!r}; it must be a frozenset of strings")
    return found


def _moving(stage: type[Stage]) -> tuple[tuple[str, str], ...]:
    """Raises: PluginError for anything but pairs of an option that there is and a word"""
    found: Any = stage.moves_facts
    pairs = isinstance(found, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in found)
    if not pairs or not all(isinstance(fact, str) and option in _names(stage) for option, fact in found):
        raise PluginError(
            f"{stage.__qualname__}.moves_facts={found!r}; it must be a tuple of pairs, each an option of "
            f"{_names(stage)} and the measured fact that it moves"
        )
    return found  # type: ignore[no-any-return]


def _decontaminates(stage: type[Stage]) -> str:
    """Raises: PluginError for anything but an option that there is"""
    found: Any = stage.decontaminates
    if found in ("", *_names(stage)):
        return str(found)
    raise PluginError(f"{stage.__qualname__}.decontaminates={found!r}; it must be one of {_names(stage)}")


def _names(stage: type[Stage]) -> list[str]:
    return [f.name for f in fields(stage.Config)]


def paragraph(cls: type[Any], label: str) -> str:
    """A labelled line of a docstring with its continuation lines."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    for i, line in enumerate(lines):
        if line.startswith(f"{label}:"):
            more = []
            for text in lines[i + 1 :]:
                if not text.strip() or text.split(":")[0] in LABELS:
                    break
                more.append(text.strip())
            return " ".join([line.partition(":")[2].strip(), *more])
    return ""


def options(config: type[Any]) -> list[dict[str, Any]]:
    """The options of a Config: name, type, default, and the string under the field."""
    docs = field_docs(config)
    hints = typing.get_type_hints(config)
    return [
        {
            "name": f.name,
            "type": type_name(hints[f.name]),
            "default": _default(f),
            "doc": docs.get(f.name, ""),
        }
        for f in fields(config)
    ]


def type_name(hint: Any) -> str:
    """A type as a reader would write it; an enum as its members."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(hint.__members__)
    if hint is type(None):
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return getattr(hint, "__name__", str(hint))
    if origin in (list, tuple, dict):
        inner = ", ".join(type_name(argument) for argument in arguments if argument is not Ellipsis)
        return f"{origin.__name__}[{inner}]"
    return " | ".join(type_name(argument) for argument in arguments)


def _default(f: Any) -> Any:
    if f.default is not MISSING:
        return plain(f.default)
    return plain(f.default_factory()) if f.default_factory is not MISSING else "required"


def field_docs(config: type[Any]) -> dict[str, str]:
    """The string under each field of a dataclass, its bases included."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        docs.update(_own_docs(cls))
    return docs


def _own_docs(cls: type[Any]) -> dict[str, str]:
    """The strings under the fields that a class itself states."""
    body: Any = _tree(cls.__module__)
    for part in cls.__qualname__.split("."):
        body = next(
            (n for n in getattr(body, "body", ()) if isinstance(n, ast.ClassDef) and n.name == part), None
        )
        if body is None:
            return {}
    docs = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.target.id] = inspect.cleandoc(following.value.value)
    return docs


@functools.cache
def _tree(module: str) -> ast.Module | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return ast.parse(Path(file).read_text(encoding="utf-8")) if file else None
