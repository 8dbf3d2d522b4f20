"""config.json of a Hugging Face directory: somebody else's file, held against a form before it is used."""

import json
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import DataError
from harness.forms import misfit

NAME = "config.json"


class Config(TypedDict, total=False):
    """What of it is read here; transformers reads the rest."""

    model_type: str
    architectures: list[str] | None
    auto_map: dict[str, Any]


def read(folder: Path) -> dict[str, Any]:
    """The config of a directory.

    Raises: DataError where there is none, or it is no JSON of that form
    """
    file = folder / NAME
    if not file.is_file():
        raise DataError(f"{folder} holds no {NAME}; give the directory of a Hugging Face checkpoint")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    if wrong := misfit(found, dict) or misfit(found, Config):
        raise DataError(f"{file} is no config of a Hugging Face checkpoint: {wrong}")
    return found  # type: ignore[no-any-return]
