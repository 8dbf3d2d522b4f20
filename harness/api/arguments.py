"""What a caller writes, as a command line: overrides in three spellings, options, a store."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.compose.arguments import SEARCH
from harness.errors import ConfigError
from harness.plan.grammar import value_text
from harness.store import Store

Overrides = str | Sequence[str] | Mapping[str, Any]
"""`["attention=full,flash", "seed=0"]`, `{"attention": "full,flash", "seed": 0}`, or one string split as a
shell does."""
_FOLDERS = ("--config-dir", "-cd")
_HYDRA = ("hydra.", "hydra/")


def written(overrides: Overrides) -> list[str]:
    """Overrides as the command line has them.

    In a mapping a string stands as it would on the command line (`"full,flash"` sweeps); a tuple sweeps over
    its items; numbers, booleans, None, lists and mappings are one value each.
    Raises: ConfigError for what is no override, and for options of Hydra's that have no effect here
    """
    if isinstance(overrides, Mapping):
        texts = [f"{key}={_value(value)}" for key, value in overrides.items()]
    elif not isinstance(overrides, Iterable):
        raise ConfigError(
            f"overrides={overrides!r} is {type(overrides).__name__}; write 'key=value', a list of such "
            "texts, or a mapping {'key': value}"
        )
    else:
        texts = shlex.split(overrides) if isinstance(overrides, str) else list(overrides)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"overrides[{place}]={text!r} is no text; write 'key=value', or a mapping {{'key': value}}"
            )
        own = text.lstrip("+~").startswith(_HYDRA) and not text.lstrip("+~").startswith(SEARCH)
        if own or (text.startswith("-") and text.partition("=")[0] not in _FOLDERS):
            raise ConfigError(
                f"{text} is for the command line (`harness sweep`, for launchers too); here options of a run "
                "are arguments, as in harness.sweep(overrides, workers=2, retry=['failed'])"
            )
    return texts


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ",".join(value_text(item) for item in value)
    return value_text(value)


def opened(store: Store | Path | str | None) -> Store:
    """A store by itself or by its folder; None is `$HARNESS_STORE`, else `.harness` here."""
    return store if isinstance(store, Store) else Store(store)
