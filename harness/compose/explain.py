"""What Hydra and OmegaConf refuse, said so that the reader knows where, what, and what would work."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_origin, get_type_hints

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from harness.compose.arguments import file_of
from harness.compose.overrides import read
from harness.compose.schema import Root, sections
from harness.compose.unknown import mounts, unknown_key
from harness.errors import ConfigError, HarnessError, UnknownNameError
from harness.forms import misfit
from harness.registry.known import registry

UNREADABLE = (UnicodeDecodeError, RecursionError, YAMLError)
"""What comes of a file that Hydra does not name."""
REFUSED = (HydraException, OmegaConfBaseException, ValueError, AttributeError, TypeError, *UNREADABLE)
"""What a composition raises for a bad override or file."""


KEYED = ("where_chosen", "at_most")
"""Root keys of which every entry's name is a dotted key of the config."""
_PLACE = re.compile(r"^In '[^']+': \w+ raised while composing config:")
"""How Hydra begins what it says of a file; which one stands before it in ours."""
_NO_FILES = ("config", "hydra/config")
"""Configs at whose choices the command line is at fault, if anything is."""


def check(overrides: Sequence[str]) -> None:
    """Refuse overrides that no composition can make sense of, and what Hydra would say badly.

    Raises: ConfigError, UnknownNameError, PluginError
    """
    for override in read(overrides):
        text, key = _typed(override), override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(f"{text} has several values; one run takes one, `harness sweep` takes all")
        if key in registry().axes:
            _check_choice(override, str(text))
        elif key in sections() and not isinstance(override.value(), dict):
            option = next(f.name for f in fields(registry().stage(sections()[key]).Config))
            raise ConfigError(f"{text}: {key} holds options; set one of them, e.g. {key}.{option}=...")
        elif key.partition(".")[0] in KEYED and "." in key:
            root, _, rest = key.partition(".")
            whole = f"{root}={{{rest}: VALUE}}"
            raise ConfigError(f"{text}: write '{whole}', as its keys have dots themselves")
        elif key == "overlay":
            raise ConfigError(
                f"{text}: an overlay is what one scale changes in one experiment, and follows from the two; "
                "choose these, experiment=NAME scale=NAME"
            )
        elif key.startswith("model.fetch"):
            raise ConfigError(
                f"{text}: only a preset says where its model comes from, e.g. model=smollm2_135m; name your "
                "own by model=pretrained model.path=DIR"
            )
        elif override.is_delete() and key in Root.__dataclass_fields__:
            raise ConfigError(f"{text} leaves {key} undefined; use {_without(key)}")
        elif key.endswith(".method"):
            axis = key.removesuffix(".method").rpartition(".")[2]
            raise ConfigError(
                f"{text} would keep the options of another method; choose it with {axis}={override.value()}"
            )


def refuse_nothing(overrides: Sequence[str], configs: Path) -> None:
    """Refuse null where a method, or a file of the configuration below `configs`, is chosen, and a layout
    where an experiment's is meant: Hydra does not say what these are.

    Raises: ConfigError
    """
    for override in read(overrides):
        folder, layout = configs / override.key_or_group, override.value()
        if override.key_or_group in registry().axes and layout is None:
            _check_choice(override, _typed(override))
        if override.key_or_group == "report" and not override.is_add() and isinstance(layout, str):
            raise ConfigError(
                f"{override.input_line}: how a table is laid out is said when it is made, `harness report "
                f"SWEEP --table {layout}`, or in an experiment's file, `report: {layout}`; here "
                f"+report={layout} does the same"
            )
        if override.value() is None and folder.is_dir():
            known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            key = override.key_or_group
            raise ConfigError(f"{_typed(override)}: {key} is one of {known}; leave it out for its default")


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


def _typed(override: Override) -> str:
    return f"~{override.key_or_group}" if override.is_delete() else str(override.input_line)


def _check_choice(override: Override, text: str) -> None:
    axis = registry().axes[override.key_or_group]
    absent = f"{axis.axis}=[]" if axis.many else f"{axis.axis}=none"
    value = override.value()
    if override.is_delete() or (value is None and override.package is None):
        default = f"{axis.axis}=[{','.join(axis.default)}]" if axis.many and axis.default else None
        ways = [default or absent] if axis.many or axis.optional else sorted(registry().methods(axis.axis))
        raise ConfigError(f"{text} leaves {axis.axis} undefined; use {' or '.join(map(str, ways))}")
    if value is None:
        raise ConfigError(
            f"{text} is what holds without it: leave it out, and the root's {axis.axis} is taken"
        )
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
    if text := _misplaced(overrides, without_values):
        raise ConfigError(text) from error
    where = re.match(r"In '([^']+)': ", str(error))
    file = file_of(where[1], overrides) if where else ""
    prefix = f"{file}: " if where and where[1] not in _NO_FILES else ""
    if isinstance(error, UNREADABLE):
        raise ConfigError(_unreadable(error, overrides)) from error
    if isinstance(error, MissingConfigException):
        _missing(error, prefix)
    cause: Any = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    in_text = re.search(r"full_key: (\S+)", str(error))
    key = getattr(cause, "full_key", None) or (in_text[1] if in_text else "")
    unknown = isinstance(cause, ConfigKeyError | ConfigAttributeError) or "not in" in str(cause)
    if key and unknown:
        raise ConfigError(prefix + unknown_key(str(key), overrides, without_values)) from error
    if key and "is not a ListConfig" in str(cause):
        raise ConfigError(f"{prefix}{key} takes a list, e.g. {key}=[A,B]") from error
    if key and (where or isinstance(cause, ValidationError)):
        given = next((text for text in overrides if text.lstrip("+").split("=")[0] == key), key)
        if "is not Optional" in str(cause):
            raise ConfigError(
                f"{prefix}{given}: {key} is never null; state a value, or leave it out for its default"
            ) from error
        if "to Dict[" in str(cause):
            raise ConfigError(
                f"{prefix}{given}: {key} takes a mapping; write e.g. {key}={{KEY: VALUE}}"
            ) from error
        several = "of type 'list'" in str(cause) and f"; `harness sweep` compares several, {key}=a,b"
        raise ConfigError(f"{prefix}{given}: {_first_line(cause)}{several or ''}") from error
    taken_out = re.match(r"Error merging override ~([^=\s]+)", str(error))
    if taken_out:
        raise ConfigError(
            f"~{taken_out[1]} would leave {taken_out[1]} without a value; set it instead"
        ) from error
    merged = re.match(r"Error merging override ([^=\s]+)=", str(error))
    if merged:
        raise ConfigError(f"{prefix}{merged[1]} takes a list, e.g. {merged[1]}=[A,B]") from error
    there = re.match(
        r"(?:Could not append to config\. An item is already at '|Multiple values for "
        r"|force-add of config groups is not supported: '\+\+)([\w./@]+\w)",
        str(error),
    ) or re.match(r"([\w./@]+) appears more than once in the final defaults list", str(error))
    added = there and next((text for text in overrides if text.lstrip("+").startswith(f"{there[1]}=")), "")
    if there and added:
        raise ConfigError(
            f"{added}: {there[1]} is there already; choose without +, {added.lstrip('+')}"
        ) from error
    misplaced = re.match(r"(?:In '[^']+': )?Could not override '([^'@]+)@([^']+)'", str(error))
    if misplaced:
        axis, package = misplaced.groups()
        known = ", ".join(mounts(axis)) or f"none, as all stages take the root's, {axis}=NAME"
        raise ConfigError(f"{prefix}{axis}@{package}: no stage takes {axis} there; known: {known}") from error
    merges = "Cannot merge" in str(error) or "Merge error" in str(error)
    misfitting = _misfitting(file, without_values) if where and merges else ""
    raise ConfigError(prefix + (misfitting or _first_line(error))) from error


def _unreadable(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong with a file that Hydra does not name: it is the chosen experiment's, if any is chosen."""
    chosen = (text.partition("=") for text in overrides if text.startswith("experiment="))
    file = "".join(file_of(f"{group}/{name}", overrides) for group, _, name in chosen) or "a config"
    if isinstance(error, RecursionError):
        return f"{file}: its `defaults` lead back to itself; take out the entry that does"
    return f"{file} is no YAML in UTF-8: {' '.join(str(error).split())}"


def _misplaced(overrides: Sequence[str], node: DictConfig | None) -> str:
    """Which override names a part of what has none (`seed.x=3`), or no list or mapping where one is."""
    if node is None:
        return ""
    for override in read(overrides):
        key, text = override.key_or_group, override.input_line
        places = key.split(".") if override.package is None else []
        for depth in range(1, len(places) + 1):
            place = ".".join(places[:depth])
            value = OmegaConf.select(node, place, throw_on_resolution_failure=False)
            if value is None:
                break
            if place != key and not OmegaConf.is_dict(value):
                return f"{text}: {place} is {value}, which has no parts; state it as a whole, {place}=..."
            kind = dict if OmegaConf.is_dict(value) else list
            given = override.value()
            plain = (
                place == key and OmegaConf.is_config(value) and ("." in key or key in get_type_hints(Root))
            )
            if plain and given is not None and (wrong := misfit(given, kind, key)):
                return f"{wrong}; write e.g. {_example(key, value)}"
    return ""


def _example(key: str, value: Any) -> str:
    """How a list or mapping that stands at a key is stated."""
    if OmegaConf.is_dict(value):
        options = [f"{key}.{name}=..." for name in value]
        return " ".join(options) or f"{key}={{KEY: VALUE}}"
    numbers = get_type_hints(Root).get(key) == list[int]
    return f"{key}=[0,1]" if numbers else f"{key}=[A,B]"


def _misfitting(file: str, node: DictConfig | None) -> str:
    """Which key of a file is a list for a mapping, or one for the other: merging does not say which."""
    with contextlib.suppress(OSError, OmegaConfBaseException):
        stated: Any = OmegaConf.to_container(OmegaConf.load(file))
        if wrong := misfit(stated, dict, "it"):
            return f"{wrong}; write e.g. `seeds: [0, 1]`"
        for key, hint in get_type_hints(Root).items():
            if key in stated and (wrong := misfit(stated[key], hint, key)):
                return wrong
        for key, value in _inner(stated):
            there: Any = None if node is None else OmegaConf.select(node, key, throw_on_missing=False)
            if OmegaConf.is_dict(there) and (wrong := misfit(value, dict, key)):
                return f"{wrong}; write e.g. {key}: {{{next(iter(there), 'KEY')}: VALUE}}"
    return ""


def _inner(stated: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a mapping that are no mapping and not null, by dotted key."""
    for name, value in stated.items():
        if isinstance(value, dict):
            yield from _inner(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value


def _missing(error: MissingConfigException, prefix: str) -> NoReturn:
    """A choice that no config stands for."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group in registry().axes:
        try:
            registry().get(group, name)
        except HarnessError as plain:
            raise ConfigError(f"{prefix}{plain}") if prefix else plain from error
    if group.startswith("hydra"):
        what = group.replace("/", " ")
    else:
        what, _, folder = group.partition("/")  # a name of several parts stands in a folder of its group
        name = f"{folder}/{name}" if folder else name
    text = str(UnknownNameError(what=what or "config", name=name, known=error.options or []))
    file = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if what == "experiment" and file.is_file():
        text = f"No experiment is called '{name}'; the file of that name is read by experiment=./{file}"
    raise ConfigError(prefix + text) from error


def _first_line(error: BaseException) -> str:
    text = _PLACE.sub("", str(getattr(error, "msg", None) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
