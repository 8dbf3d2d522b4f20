"""What a plugin may bring: everything that publishing asks of a class, checked before the class counts.

A wrong class would otherwise surface in whatever command composes a config, for everyone, without its name.
"""

from __future__ import annotations

import json
import re
import typing
from dataclasses import MISSING, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.errors import HarnessError, PluginError
from harness.method import Method
from harness.nodes import plain
from harness.stage import Stage

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
"""What Hydra reads as one word, in a value (`axis=name`) and a key (`axis.name.option`), and any file system
as part of a name."""
NOT_WORDS = ("null", "true", "false", "nan", "inf")
"""Words that Hydra reads, in any case, as values of other types."""
ROOT_KEYS = (
    *("name", "question", "factors", "baseline", "seeds", "reseed", "zip", "cells", "exclude", "tune"),
    *("claims", "report", "seed", "base_seed", "seed_from", "device", "stages", "scale", "at_most", "model"),
    *("primary", "where_chosen", "threads"),
    *("defaults", "experiment", "overlay", "hydra", "harness_root", "harness_mounts", "config"),
)
"""Keys and groups of the root config that are no name of an axis or stage; a test holds them complete."""
NOT_OPTIONS = {
    "method": "it is where a node carries its method's name",
    "defaults": "Hydra reads it as a list of further configs",
}
"""Names that an option cannot have, and why."""
SETS = ("changes", "after", "requires", "provides", "conflicts")
"""Declarations of a method that are sets of words."""


def check_method(method: type[Method]) -> None:
    """Refuse a method that could not be listed, published, chosen or hashed.

    Raises: PluginError naming the class and what would work
    """
    where = f"{method.__module__}.{method.__qualname__}"
    check_name(method.name, f"{where}.name")
    if method.name == "none" and method.optional:
        raise PluginError(f"{where}.name: 'none' of {method.axis} is provided by harness; use another word")
    check_declarations(method, where)
    check_config(method.Config, f"{where}.Config")


def check_axis(axis: type[Method]) -> None:
    """Refuse a contract whose axis could not stand in the root config.

    Raises: PluginError naming the class and what would work
    """
    where = f"{axis.__module__}.{axis.__qualname__}"
    check_name(axis.axis, f"{where}.axis")
    check_key(axis.axis, f"{where}.axis")
    check_declarations(axis, where)
    names = axis.default if isinstance(axis.default, tuple) else (axis.default,)
    if axis.many != isinstance(axis.default, tuple) and axis.default is not None:
        kind = "a tuple of names, as the axis takes a list" if axis.many else "one name, as many is False"
        raise PluginError(f"{where}.default={axis.default!r}; it must be {kind}")
    if not all(name is None or isinstance(name, str) for name in names):
        raise PluginError(f"{where}.default={axis.default!r}; it names methods, as strings")
    check_config(axis.Config, f"{where}.Config")


def check_stage(stage: type[Stage]) -> None:
    """Refuse a stage whose options could not stand in the root config, or that the plan could not place.

    Raises: PluginError naming the class and what would work
    """
    where = f"{stage.__module__}.{stage.__qualname__}"
    for name in ("name", "produces"):
        check_name(getattr(stage, name, None), f"{where}.{name}")
    check_key(stage.name, f"{where}.name")
    for name in ("after", "before", "axes", "needs", "may_need", "trial"):
        value = getattr(stage, name)
        if not isinstance(value, tuple) or not all(isinstance(word, str) for word in value):
            raise PluginError(f"{where}.{name}={value!r}; it must be a tuple of strings")
    if not isinstance(stage.seeded, bool):
        raise PluginError(f"{where}.seeded={stage.seeded!r}; it must be True or False")
    if getattr(stage.run, "__isabstractmethod__", False):
        raise PluginError(f"{where} has no `run`, which writes the artifact")
    check_config(stage.Config, f"{where}.Config")
    clash = sorted({f.name for f in fields(stage.Config)} & {*stage.axes})
    if clash:
        raise PluginError(f"{where}.Config: {clash} would stand where the stage's own axes are chosen")


def check_key(name: str, where: str) -> None:
    """Refuse a name that the root config has for something else.

    Raises: PluginError
    """
    if name in ROOT_KEYS:
        raise PluginError(f"{where}: '{name}' is a key of every config; use another word")
    if name.endswith("_stage"):
        raise PluginError(
            f"{where}: '{name}' ends in _stage, as the options of a stage called like an axis do "
            "(`reward_stage`); use another word"
        )


def check_name(name: object, where: str) -> None:
    """Refuse what is not one word on Hydra's command line.

    Raises: PluginError
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in NOT_WORDS:
        raise PluginError(
            f"{where}={name!r} is no name; use letters, digits and _, beginning with a letter, "
            f"at most 64 of them, and none of {', '.join(NOT_WORDS)}"
        )


def check_declarations(cls: type[Method], where: str) -> None:
    """Refuse class attributes of a wrong type; a string where a set is meant would be read letter by letter.

    Raises: PluginError
    """
    for name in SETS:
        value = getattr(cls, name)
        if not isinstance(value, frozenset) or not all(isinstance(word, str) for word in value):
            raise PluginError(f"{where}.{name}={value!r}; it must be a frozenset of strings")
    if not isinstance(cls.stages, tuple) or not all(isinstance(stage, str) for stage in cls.stages):
        raise PluginError(f"{where}.stages={cls.stages!r}; it must be a tuple of stages' names")
    if not isinstance(cls.libraries, tuple) or not all(isinstance(module, str) for module in cls.libraries):
        raise PluginError(f"{where}.libraries={cls.libraries!r}; it must be a tuple of modules' names")
    for name in ("many", "optional"):
        if not isinstance(getattr(cls, name), bool):
            raise PluginError(f"{where}.{name}={getattr(cls, name)!r}; it must be True or False")
    if not (cls.extra is None or isinstance(cls.extra, str)):
        raise PluginError(f"{where}.extra={cls.extra!r}; it names an optional dependency group, or is None")
    if not (cls.__doc__ is None or isinstance(cls.__doc__, str)):
        raise PluginError(f"{where}.__doc__ is no text")


def check_config(config: Any, where: str) -> None:
    """Refuse options that cannot be published to Hydra, converted back, or hashed into a key.

    Raises: PluginError
    """
    if not (isinstance(config, type) and is_dataclass(config)):
        raise PluginError(f"{where} must be a class decorated with @dataclass(frozen=True, kw_only=True)")
    for f in fields(config):
        if f.name in NOT_OPTIONS or f.name.startswith("_"):
            why = NOT_OPTIONS.get(f.name, "names that begin with _ are not for users")
            raise PluginError(f"{where}: an option cannot be called `{f.name}`: {why}")
    try:
        typing.get_type_hints(config)
        OmegaConf.structured(config)
    except Exception as error:
        way = "; name the choices in an Enum" if "Literal[" in str(error) else ""
        raise PluginError(f"{where} cannot be published to Hydra: {first_line(error)}{way}") from error
    for f in fields(config):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        try:
            if default is not MISSING:
                json.dumps(plain(default))
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"{where}.{f.name}={default!r} is no plain value ({first_line(error)}); "
                "use numbers, strings, booleans, enums, and lists or dicts of them"
            ) from error
    if all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(config)):
        _check_built(config, where)


def _check_built(config: Any, where: str) -> None:
    try:
        config()
    except (HarnessError, ValueError, TypeError):
        pass  # an option that must be given: composing says so, in the words of the method
    except Exception as error:
        raise PluginError(
            f"{where}() raises {type(error).__name__}: {first_line(error)}; "
            "refuse values with ConfigError, which says what would work"
        ) from error


def folder_of(path: object, hook: str) -> Path:
    """The folder of an installed package that a hook names; a wrong one would be met in every command.

    Raises: PluginError
    """
    if not (isinstance(path, str) and path.startswith("pkg://")):
        raise PluginError(f"{hook} returned {path!r}; return strings like 'pkg://package.folder'")
    *parents, last = path.removeprefix("pkg://").replace("/", ".").split(".")
    try:
        spec = find_spec(".".join(parents)) if parents else find_spec(last)
    except (ImportError, ValueError):
        spec = None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    named = [folder / last if parents else folder for folder in folders]
    found = next((folder for folder in named if folder.is_dir()), None)
    if found is None:
        raise PluginError(f"{hook} returned {path!r}, which is no folder of an installed package")
    return found


def first_line(error: BaseException) -> str:
    """The first line of a message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
