"""Model directories from outside the store: hashed once, then known by size and time of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.store.artifacts import Artifact
from harness.store.contents import Contents

HUB = "hub:"
PATH = "path:"
ORIGIN = "gguf.json"
"""In a directory that a GGUF became: its name, its SHA-256, and how many tensors it stores in which type."""


def external(reference: str, *, cache: Path) -> Artifact:
    """The model that a path or `hub:name@revision` names, as an artifact whose key is its content.

    A hub name is looked up in the local cache of huggingface_hub, or downloaded where that is allowed;
    its key is the commit it resolves to.
    Raises: ConfigError where there is no such directory or model
    """
    if reference.startswith(HUB):
        return _from_hub(reference)
    path = Path(reference.removeprefix(PATH)).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(
            f"No model directory {path}; give a directory in Hugging Face format, or hub:name@revision"
        )
    if not (path / "config.json").is_file() and not (path / "model.json").is_file():
        raise ConfigError(f"{path} holds no config.json, so it is no model in Hugging Face format")
    facts: dict[str, Any] = {"path": str(path)}
    if (path / ORIGIN).is_file():
        facts["gguf"] = json.loads((path / ORIGIN).read_text(encoding="utf-8"))
    return _artifact(PATH + directory_hash(path, cache=cache), path, facts)


def directory_hash(path: Path, *, cache: Path) -> str:
    """SHA-256 over names and contents of a directory's files; `cache` remembers them by size and time."""
    contents = Contents(cache)
    files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    found = contents.digest(files)
    contents.save()
    return found


def _from_hub(reference: str) -> Artifact:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = reference.removeprefix(HUB).partition("@")
    try:
        path = Path(snapshot_download(name, revision=revision or None))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"{reference} is neither in the local Hugging Face cache nor can it be downloaded ({error}); "
            "download it where there is a network, or give path:DIR"
        ) from error
    return _artifact(f"{HUB}{name}@{path.name}", path, {"name": name, "revision": path.name})


def _artifact(key: str, path: Path, facts: dict[str, Any]) -> Artifact:
    return Artifact(key=key, path=path, stage="external", kind="model", inputs={}, facts=facts)
