"""Reading overrides by Hydra's grammar, and saying what is wrong with one that cannot be read."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from harness.compose.arguments import refuse_flags
from harness.errors import ConfigError

_WORD = re.compile(r"[\w./-]+")
"""A name or a file alone."""
_NOTHING = re.compile(r"^\s*,|,\s*(?:,|$|[]})])|[\[({]\s*,")
"""A comma without a value on one side."""


@functools.cache
def parser() -> OverridesParser:
    """Hydra's parser; one serves all."""
    return OverridesParser.create()


def read(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises: ConfigError naming the one that cannot be read
    """
    refuse_flags(overrides)
    return [_read(text) for text in overrides]


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> Override:
    """Once in a process: checks and compositions ask for the same texts again, and nobody changes one."""
    try:
        override = parser().parse_override(text)
    except HydraException as error:
        if _WORD.fullmatch(text):
            raise ConfigError(
                f"'{text}' is no override; write key=value; an experiment is chosen by experiment={text}"
            ) from error
        lines = str(error).splitlines()
        detail = next((line for line in lines if not line.startswith(("Error parsing", "See "))), lines[0])
        key, _, value = text.partition("=")
        if _NOTHING.search(value):
            raise ConfigError(
                f"'{text}' is no override: nothing stands before or after a comma; drop the comma, or write "
                "'' for an empty text"
            ) from error
        raise ConfigError(
            f"'{text}' is no override ({detail}); write key=value, or key=a,b to sweep. A value with spaces "
            f"or special characters needs quotes of its own within the shell's: '{key}=\"{value or 'text'}\"'"
        ) from error
    if not override.key_or_group:
        raise ConfigError(f"'{text}' names no key; write key=value")
    return override
