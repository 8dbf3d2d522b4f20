"""Keys: the SHA-256 of everything that determines an artifact."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.method import MODEL, Choice
from harness.paths import MARK as PATH


class Plain(dict[str, Any]):
    """A mapping in its plain form, which `plain` returns as it is; nodes of many cells share it."""


def plain(value: Any) -> Any:
    """The JSON value that stands for `value` in keys; equal options give equal values. Options that lead to
    models and files are left out.

    Raises: ConfigError for what has no canonical form (NaN, functions, arbitrary objects)
    """
    if value is None or isinstance(value, bool | int | str):
        return value.name if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{value} cannot be part of a key; use a finite number")
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Choice):
        return choice_node(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if not _leads(f)}
    if isinstance(value, Plain):
        return value
    if isinstance(value, Mapping):
        return {str(k.name if isinstance(k, enum.Enum) else k): plain(v) for k, v in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=canonical)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise ConfigError(f"{value!r} of type {type(value).__name__} cannot be part of a key")


def choice_node(choice: Choice) -> dict[str, Any]:
    """A choice as its config node: the method's name and its options."""
    return {"method": choice.method.name, **plain(choice.config)}


def _leads(option: dataclasses.Field[Any]) -> bool:
    """Whether an option leads to a model or to files: what it leads to enters a key, however it is named."""
    return MODEL in option.metadata or PATH in option.metadata


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def stage_key(
    *,
    stage: str,
    part: str,
    nodes: Mapping[str, Any],
    config: Any,
    inputs: Mapping[str, str],
    files: Mapping[str, str],
    seed: int | None,
    numerics: Mapping[str, Any],
    fingerprint: str,
) -> tuple[str, dict[str, Any]]:
    """The key of a stage's artifact, and the material it was made of (kept for `harness diff`)."""
    material = plain(
        {
            "stage": stage,
            "part": part,
            "nodes": nodes,
            "config": config,
            "inputs": inputs,
            "files": files,
            "seed": seed,
            "numerics": numerics,
            "fingerprint": fingerprint,
        }
    )
    return digest(material), material
