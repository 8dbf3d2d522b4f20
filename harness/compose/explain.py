"""What Hydra and OmegaConf refuse, said so that the reader knows where, what, and what would work."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_origin, get_type_hints

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from harness.compose.overrides import read
from harness.compose.schema import Root, sections
from harness.errors import ConfigError, HarnessError, UnknownNameError
from harness.forms import misfit
from harness.registry.known import registry

REFUSED = (HydraException, OmegaConfBaseException, ValueError, AttributeError, TypeError)
"""What a composition raises for a bad override or file."""


_PLACE = re.compile(r"^In '[^']+': \w+ raised while composing config:")
"""How Hydra begins what it says of a file; which one stands before it in ours."""
_NO_FILES = ("config", "hydra/config")
"""Configs at whose choices the command line is at fault, if anything is."""


def check(overrides: Sequence[str]) -> None:
    """Refuse overrides that no composition can make sense of, and what Hydra would say badly.

    Raises: ConfigError, UnknownNameError, PluginError
    """
    for override in read(overrides):
        text, key = override.input_line, override.key_or_group
        text = f"~{key}" if override.is_delete() else text
        if override.is_sweep_override():
            raise ConfigError(f"{text} has several values; one run takes one, `harness sweep` takes all")
        if key in registry().axes:
            _check_choice(override, str(text))
        elif key in sections() and not isinstance(override.value(), dict):
            option = next(f.name for f in fields(registry().stage(sections()[key]).Config))
            raise ConfigError(f"{text}: {key} holds options; set one of them, e.g. {key}.{option}=...")
        elif override.is_delete() and key in Root.__dataclass_fields__:
            raise ConfigError(f"{text} leaves {key} undefined; use {_without(key)}")
        elif key.endswith(".method"):
            axis = key.removesuffix(".method").rpartition(".")[2]
            raise ConfigError(
                f"{text} would keep the options of another method; choose it with {axis}={override.value()}"
            )


def refuse_nothing(overrides: Sequence[str], configs: Path) -> None:
    """Refuse null where a file of the configuration, below `configs`, is chosen, of which Hydra does not say
    what it is.

    Raises: ConfigError
    """
    for override in read(overrides):
        folder = configs / override.key_or_group
        if override.value() is None and folder.is_dir():
            known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            key = override.key_or_group
            text = f"~{key}" if override.is_delete() else override.input_line
            raise ConfigError(f"{text}: {key} is one of {known}; leave it out for its default")


def _without(key: str) -> str:
    """How a root key is left at nothing, or at its default where it is never nothing."""
    if get_origin(get_type_hints(Root)[key]) is UnionType:
        return f"{key}=null"
    default = getattr(Root(), key)
    if isinstance(default, dict):
        return f"null for its entries, {key}.NAME=null"
    if isinstance(default, list):
        return f"{key}=[{','.join(default)}]"
    return f"{key}={getattr(default, 'value', default)}"


def _check_choice(override: Override, text: str) -> None:
    axis = registry().axes[override.key_or_group]
    absent = f"{axis.axis}=[]" if axis.many else f"{axis.axis}=none"
    value = override.value()
    if override.is_delete() or (value is None and override.package is None):
        default = f"{axis.axis}=[{','.join(axis.default)}]" if axis.many and axis.default else None
        ways = [default or absent] if axis.many or axis.optional else sorted(registry().methods(axis.axis))
        raise ConfigError(f"{text} leaves {axis.axis} undefined; use {' or '.join(map(str, ways))}")
    if value is None:
        return
    names = value if isinstance(value, list) else [value]
    if len(names) != 1 and not axis.many:
        raise ConfigError(
            f"{text}: {axis.axis} takes one method; to compare several, `harness sweep` with a,b"
        )
    for name in names:
        registry().get(axis.axis, str(name))
        if names.count(name) > 1:
            raise ConfigError(f"{text} names {name} twice; each method of a list stands once")


def explain(error: Exception, overrides: Sequence[str], without_values: DictConfig | None) -> NoReturn:
    """Raise what a failed composition means.

    `without_values` is the composition of the choices alone, to list the options that exist.
    Raises: ConfigError, UnknownNameError, PluginError
    """
    if isinstance(error, HarnessError):
        raise error
    where = re.match(r"In '([^']+)': ", str(error))
    prefix = f"{_file(where[1])}: " if where and where[1] not in _NO_FILES else ""
    if isinstance(error, MissingConfigException):
        _missing(error, prefix)
    cause: Any = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    in_text = re.search(r"full_key: (\S+)", str(error))
    key = getattr(cause, "full_key", None) or (in_text[1] if in_text else "")
    unknown = isinstance(cause, ConfigKeyError | ConfigAttributeError) or "not in" in str(cause)
    if key and unknown:
        raise ConfigError(prefix + unknown_key(str(key), without_values)) from error
    if key and (where or isinstance(cause, ValidationError)):
        given = next((text for text in overrides if text.lstrip("+").split("=")[0] == key), key)
        raise ConfigError(f"{prefix}{given}: {_first_line(cause)}") from error
    taken_out = re.match(r"Error merging override ~([^=\s]+)", str(error))
    if taken_out:
        raise ConfigError(
            f"~{taken_out[1]} would leave {taken_out[1]} without a value; set it instead"
        ) from error
    misplaced = re.match(r"(?:In '[^']+': )?Could not override '([^'@]+)@([^']+)'", str(error))
    if misplaced:
        axis, package = misplaced.groups()
        raise ConfigError(
            f"{prefix}{axis}@{package}: no stage takes {axis} there; known: {', '.join(_mounts(axis))}"
        ) from error
    misfitting = _misfitting(_file(where[1])) if where and "Cannot merge" in str(error) else ""
    raise ConfigError(prefix + (misfitting or _first_line(error))) from error


def _misfitting(file: str) -> str:
    """Which root key of a file is a list for a mapping, or one for the other: merging does not say which."""
    with contextlib.suppress(OSError, OmegaConfBaseException):
        stated: Any = OmegaConf.to_container(OmegaConf.load(file))
        for key, hint in get_type_hints(Root).items():
            if wrong := key in stated and misfit(stated[key], hint, key):
                return str(wrong)
    return ""


def unknown_key(key: str, node: DictConfig | None) -> str:
    """Why there is no such key, with what exists beside it and which methods do have it."""
    parent, _, name = key.rpartition(".")
    beside: Any = OmegaConf.select(node, parent) if node is not None and parent else node
    axis = registry().axes.get(key.split(".")[0])
    if axis is not None and axis.many and (parent == axis.axis or not OmegaConf.is_dict(beside)):
        chosen = registry().get(axis.axis, key.split(".")[1]).name
        return f"{key}: {chosen} is not chosen; add it, e.g. {axis.axis}=[{chosen}]"
    if axis is not None and parent and not OmegaConf.is_dict(beside):
        way = f"choose one, {axis.axis}=NAME"
        return f"{key}: no {axis.axis} is chosen, which could have options; drop it, or {way}"
    if axis is None and (broken := registry().broken(key.split(".")[0])):
        return str(broken)
    if not OmegaConf.is_dict(beside):
        return f"No config key is called '{key}'"
    known = sorted(str(item) for item in beside if item != "method")
    what = "config key" if not parent else f"option of {parent}"
    if axis is not None and "method" in beside:
        what = f"option of {parent.replace('.', '=') if axis.many else f'{parent}={beside.method}'}"
    message = str(UnknownNameError(what=what, name=name, known=known))
    having = [
        method.name
        for method in (registry().methods(axis.axis).values() if axis is not None else ())
        if any(f.name == name for f in fields(method.Config))
    ]
    return f"{message}. Methods that have it: {', '.join(having)}" if having else message


def _missing(error: MissingConfigException, prefix: str) -> NoReturn:
    """A choice that no config stands for."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group in registry().axes:
        try:
            registry().get(group, name)
        except HarnessError as plain:
            raise ConfigError(f"{prefix}{plain}") if prefix else plain from error
    raise ConfigError(
        prefix
        + str(
            UnknownNameError(what=group.replace("/", " ") or "config", name=name, known=error.options or [])
        )
    ) from error


def _file(config: str) -> str:
    """The file of a config as Hydra names it; one of a user's is called by its path."""
    _, elsewhere, path = config.partition("//")
    return f"/{path}" if elsewhere else f"conf/{config}.yaml"


def _mounts(axis: str) -> list[str]:
    from harness.compose.schema import mounted_axes, stage_key

    return [f"{axis}@{stage_key(stage)}.{axis}" for stage in registry().stages if axis in mounted_axes(stage)]


def _first_line(error: BaseException) -> str:
    text = _PLACE.sub("", str(getattr(error, "msg", None) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
