"""Equal nodes of configs as one object: what follows from one is worked out once for all cells that have it.

A sweep of 10,000 cells has some hundred different nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from typing import Any, TypeVar, cast

T = TypeVar("T")

_BY_CONTENT: dict[str, Any] = {}
_KEPT: dict[int, Any] = {}
"""Shared nodes by their identity; none is ever freed, so that no identity is used twice."""
_FOUND: dict[tuple[Hashable, ...], Any] = {}


def shared(node: Any) -> Any:
    """The first node equal to this one, types and order included; nobody may change it from now on."""
    if not isinstance(node, dict | list) or _KEPT.get(id(node)) is node:
        return node
    content = repr(node)  # tells 1 from 1.0, true and '1'; keeps the order of methods
    if content not in _BY_CONTENT:
        kept = {k: shared(v) for k, v in node.items()} if isinstance(node, dict) else [*map(shared, node)]
        _BY_CONTENT[content] = _KEPT[id(kept)] = kept
    return _BY_CONTENT[content]


def identity(nodes: Iterable[Any]) -> tuple[Hashable, ...] | None:
    """Equal for equal nodes; None where one is not shared."""
    found: list[Hashable] = []
    for node in nodes:
        if _KEPT.get(id(node)) is node:
            found.append(id(node))
        elif node is None or isinstance(node, str | int | float | Enum):
            found.append((type(node), node))
        else:
            return None
    return tuple(found)


def once(node: Any, what: tuple[Hashable, ...], make: Callable[[], T]) -> T:
    """What `make` returns, which must follow from `what` and the content of the node alone.

    Nodes that are not shared, and errors, are not remembered
    """
    if _KEPT.get(id(node)) is not node:
        return make()
    key = (id(node), *what)
    if key not in _FOUND:
        _FOUND[key] = make()
    return cast(T, _FOUND[key])
