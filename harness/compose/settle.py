"""What harness itself sets on a composed config: options of chosen methods, bounds of a scale, idle stages.

All of it yields to what was typed on the command line, and all of it is shown by `--cfg job`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import ConfigError, UnknownNameError
from harness.forms import misfit
from harness.nodes import as_text, refusal, writable
from harness.registry.known import registry

EXAMPLES = {"where_chosen": "corpus.stdlib.max_bytes: 3_000_000", "at_most": "pretrain.batch_size: 8"}


def settle(raw: dict[str, Any], *, typed: Collection[str], stated: Collection[str]) -> None:
    """Apply `where_chosen`, except to options that `stated` names, then `at_most`, except to `typed` ones.

    Nodes below the root are replaced, not changed: other cells may have them too.

    `typed` are keys of the command line; `stated` those of a factor's level as well, which a scale may bound.
    What they overrule is taken out of both, so that settling once more changes nothing.
    Raises: UnknownNameError, ConfigError where `where_chosen` names what does not exist
    """
    for block, form, above in (
        ("where_chosen", dict[str, Any], stated),
        ("at_most", dict[str, float], typed),
    ):
        given = raw.get(block) or {}
        if wrong := misfit(given, form, block):
            raise ConfigError(f"{wrong}; write e.g. {block}: {{{EXAMPLES[block]}}}")
        raw[block] = {key: value for key, value in given.items() if not _is_typed(block, key, above)}
    for key, value in raw["where_chosen"].items():
        _set_where_chosen(raw, key, value)
    for key, most in raw["at_most"].items():
        if not 0 <= most < math.inf:
            raise ConfigError(f"at_most.{key}={most} bounds nothing; a bound is a number from 0 on")
        _bound(raw, key, most)


def typed_keys(overrides: Collection[str]) -> frozenset[str]:
    """The keys that overrides set."""
    return frozenset(text.partition("=")[0].lstrip("+~") for text in overrides)


def option_keys(raw: Mapping[str, Any]) -> list[str]:
    """Config keys of the options that `where_chosen` sets at the root of a config."""
    found = []
    for key in raw["where_chosen"]:
        axis, name, option = _parts(key)
        node = raw.get(axis) or {}
        if registry().axes[axis].many:
            found += [key] if name in node else []
        elif node.get("method") == name:
            found.append(f"{axis}.{option}")
    return found


def _is_typed(block: str, key: str, typed: Collection[str]) -> bool:
    """Whether an option, or a mapping that holds it, was typed."""
    if block == "where_chosen":
        axis, method, option = _parts(key)
        key = f"{axis}.{method}.{option}" if registry().axes[axis].many else f"{axis}.{option}"
    return any(key == name or ("." in name and key.startswith(f"{name}.")) for name in typed)


def _parts(key: str) -> tuple[str, str, str]:
    """Axis, method and option of a key of `where_chosen`; all three must exist."""
    axis, _, rest = key.partition(".")
    name, _, option = rest.partition(".")
    if not option:
        raise ConfigError(f"where_chosen.{key}: write <axis>.<method>.<option>, e.g. corpus.stdlib.max_bytes")
    method = registry().get(axis, name)
    known = [f.name for f in fields(method.Config)]
    if option not in known:
        raise UnknownNameError(what=f"option of {axis}={name} (in where_chosen)", name=option, known=known)
    return axis, name, option


def _set_where_chosen(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set an option of a method at the root and in every stage that chose that method for itself."""
    axis, name, option = _parts(key)
    _refuse_misfit(key, as_text(value))
    if registry().axes[axis].many:
        if name in (raw.get(axis) or {}):
            raw[axis] = {**raw[axis], name: {**raw[axis][name], option: value}}
        return
    stages = [key for key, part in raw.items() if key != axis and isinstance(part, dict)]
    for path in ([axis], *([stage, axis] for stage in stages)):
        chosen = value_at(raw, path)
        if isinstance(chosen, Mapping) and chosen.get("method") == name:
            put(raw, path, {**chosen, option: value})


@functools.lru_cache(maxsize=1024)
def _refuse_misfit(key: str, text: str) -> None:
    """Refuse a value, here as JSON, of another type than its option's; once for all cells."""
    axis, name, option = _parts(key)
    node = writable(OmegaConf.structured(registry().get(axis, name).Config))
    try:
        OmegaConf.merge(node, OmegaConf.create({option: json.loads(text)}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"where_chosen.{key}: {refusal(error)}") from error


def _bound(raw: dict[str, Any], key: str, most: float) -> None:
    """Lower an option where it is higher, or null and so unlimited; of a list keep the first ones."""
    path = key.split(".")
    stated = value_at(raw, path)
    if stated is MISSING:
        return
    value = _number(stated)
    if isinstance(value, str):
        return  # no number: its type is refused where it is read
    if isinstance(value, list):
        put(raw, path, value[: int(most)])
    elif value is None or value > most:
        put(raw, path, type(value)(most) if value else int(most))


def value_at(raw: Any, path: Sequence[str]) -> Any:
    """The value at a path of keys; MISSING where there is none."""
    for name in path:
        if not isinstance(raw, Mapping) or name not in raw:
            return MISSING
        raw = raw[name]
    return raw


def put(raw: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value at a path; what holds it is replaced by a copy, the root alone is changed."""
    first, *rest = path
    if rest:
        below = dict(raw[first])
        put(below, rest, value)
        value = below
    raw[first] = value


def _number(value: Any) -> Any:
    """A number that an interpolation (`${oc.env:X}`) left as text, as a number."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
