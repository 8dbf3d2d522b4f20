"""What every method of every axis must do, whoever ships it."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import sys
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from harness.compose import Cell, compose
from harness.compose.describe import field_docs
from harness.compose.typed import instance
from harness.errors import HarnessError
from harness.method import MODEL, Method
from harness.nodes import plain
from harness.paths import MARK, parts
from harness.registry.known import registry

AXIS = None
"""Every axis."""

HEAVY = ("transformers", "peft", "lm_eval", "wandb", "datasets", "trl", "datatrove", "optuna", "matplotlib")
"""Libraries that cost seconds to import; `plan` and `list` import every plugin."""


def test_the_config_is_frozen(method: type[Method]) -> None:
    assert dataclasses.is_dataclass(method.Config), (
        "Config is no dataclass: decorate it with @dataclass(frozen=True, kw_only=True)"
    )
    assert vars(method.Config)["__dataclass_params__"].frozen, (
        "decorate it with @dataclass(frozen=True, kw_only=True)"
    )
    assert all(f.kw_only for f in dataclasses.fields(method.Config)), "options are keyword-only"


def test_every_option_says_what_it_means(method: type[Method]) -> None:
    docs = field_docs(method.Config)
    silent = [f.name for f in dataclasses.fields(method.Config) if not docs.get(f.name)]
    assert not silent, f"write a string with meaning and unit under {silent}"


def test_it_says_what_it_is(method: type[Method]) -> None:
    summary = method.__dict__.get("__doc__") or ""
    assert summary.strip(), "its docstring starts with one sentence that says what it is"
    assert method.summary().isascii(), "plain ASCII"


def test_a_config_round_trips_through_hydra(method: type[Method]) -> None:
    if _requires(method):
        return
    chosen = _chosen(method)
    cell = _composed(registry().source(method).package).get(chosen) or compose([chosen])
    choice = cell.choices(method.axis)[-1]
    assert choice.method is method, f"{chosen} gives another class"
    assert choice.config == method.Config(), (
        "the composed options are not the Config's defaults: options are plain values of stated types"
    )
    assert instance(method.Config, plain(choice.config), where=method.axis) == choice.config, (
        "the options do not survive being written and read: use str, int, float, bool, enums and lists"
    )


@functools.cache
def _composed(package: str) -> Mapping[str, Cell]:
    """What a distribution's methods compose to, by override: one of every axis in each composition, which
    takes Hydra no longer than one of one axis. What cannot be composed with others is left out.
    """
    known = registry()
    own = [m for m in known.all() if known.source(m).package == package and not _requires(m)]
    by_axis = [[_chosen(method) for method in own if method.axis == axis] for axis in known.axes]
    found: dict[str, Cell] = {}
    for row in itertools.zip_longest(*by_axis):
        together = [chosen for chosen in row if chosen is not None]
        with contextlib.suppress(HarnessError):
            found |= dict.fromkeys(together, compose(together))
    return found


def _chosen(method: type[Method]) -> str:
    """The override that chooses a method."""
    return f"{method.axis}=[{method.name}]" if method.many else f"{method.axis}={method.name}"


def _requires(method: type[Method]) -> bool:
    """Whether an option has no default."""
    return any(_is_required(f) for f in dataclasses.fields(method.Config))


def test_its_defaults_are_plain_values(method: type[Method]) -> None:
    for f in dataclasses.fields(method.Config):
        if not _is_required(f):
            value = f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc,operator]
            kinds = (bool, int, float, str, list, tuple, dict, Enum, Path, type(None))
            assert isinstance(value, kinds) or dataclasses.is_dataclass(value), f"{f.name} = {value!r}"


def test_options_that_name_files_are_declared(method: type[Method]) -> None:
    assert method.axis == "tracker" or not undeclared(method.Config), (
        f"declare {undeclared(method.Config)} with path_ref (or model_ref), so that content enters the key"
    )


def undeclared(config: type[Any]) -> list[str]:
    """Options of a Config, and of those inside it, that are called like a file and take text, yet are
    declared neither as files nor as a model."""
    found = []
    for f in dataclasses.fields(config):
        hint = str(typing.get_type_hints(config)[f.name])
        takes_text = re.search(r"\b(str|Path|Any)\b", hint) is not None
        if takes_text and _CALLED.search(f.name) and not {MODEL, MARK} & set(f.metadata):
            found.append(f.name)
        for part in (typing.get_type_hints(config)[f.name], *parts(typing.get_type_hints(config)[f.name])):
            if dataclasses.is_dataclass(part):
                found += [f"{f.name}.{name}" for name in undeclared(part)]  # type: ignore[arg-type]
    return found


_CALLED = re.compile(r"(^|_)(paths?|files?|filenames?|dirs?|director(y|ies)|folders?)$")


def test_its_file_bears_its_name(method: type[Method]) -> None:
    module = method.__module__
    if module.startswith("harness_plugins."):
        assert module.split(".")[1:] == [method.axis, method.name], (
            f"{module} defines {method.axis}={method.name}"
        )


def test_its_hook_stands_last(method: type[Method]) -> None:
    last = _tree(method).body[-1]
    hook = isinstance(last, ast.FunctionDef) and last.name.startswith("harness_")
    assert hook, f"the last statement of {method.__module__} is not its hook"


def test_it_imports_only_the_public_surface(method: type[Method]) -> None:
    own = method.__module__.rpartition(".")[0]
    for node in ast.walk(_tree(method)):
        for name in _imported(node):
            top = name.split(".")[0]
            assert top != "harness" or name == "harness", f"it imports {name}; take it from `harness` itself"
            sibling = name.startswith(f"{own}._")
            assert top != "harness_plugins" or sibling, f"it imports {name}; a plugin imports no other plugin"


def test_it_imports_heavy_libraries_only_when_used(method: type[Method]) -> None:
    for node in _tree(method).body:
        for name in _imported(node):
            assert name.split(".")[0] not in HEAVY, f"import {name} inside the function that needs it"


def _is_required(f: dataclasses.Field[object]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _tree(method: type[Method]) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[method.__module__]))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []
