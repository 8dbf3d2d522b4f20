"""The methods of an axis by name, each imported when its class is asked for: a plan reads few of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.method import Method


class Methods(Mapping[str, type[Method]]):
    """Classes that are there, and promises of classes.

    State: a promise is kept once, at the first look-up of its name
    Raises: on look-up, what keeping a promise raises
    """

    def __init__(self) -> None:
        self._found: dict[str, type[Method] | None] = {}
        self._promised: dict[str, Callable[[], type[Method]]] = {}

    def add(self, method: type[Method]) -> None:
        """Hold a class."""
        self._found[method.name] = method

    def promise(self, name: str, load: Callable[[], type[Method]]) -> None:
        """Hold a name whose class `load` returns."""
        self._found[name] = None
        self._promised[name] = load

    def sort(self, *, key: Callable[[str], Any]) -> None:
        """Put the names in order."""
        self._found = {name: self._found[name] for name in sorted(self._found, key=key)}

    def __getitem__(self, name: str) -> type[Method]:
        method = self._found[name]
        if method is None:
            method = self._found[name] = self._promised[name]()
        return method

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
