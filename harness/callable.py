"""Subpackages called like the function of their name: `harness.plan(...)` beside `harness.plan.make`.

Importing `harness.plan.make` puts the module `plan` where the function would stand, so the module calls it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def call_as(package: str, function: str) -> None:
    """Let calls of a package go to `function` ("module:name"), which is imported at the first of them."""
    module, _, name = function.partition(":")

    class Callable(ModuleType):
        @property
        def __wrapped__(self) -> Any:  # what `inspect.signature` reads
            return getattr(import_module(module), name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.__wrapped__(*args, **kwargs)

    sys.modules[package].__class__ = Callable
