"""Real distributions in a folder of their own, and the command line that sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import warm

ROOT = Path(__file__).parents[2]


def distribution(site: Path, name: str, module: str, content: str) -> None:
    """Another distribution in the same folder, as an installer leaves it."""
    (site / f"{module}.py").write_text(content)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[harness]\n{module} = {module}\n")


def harness(
    arguments: Sequence[str], *sites: Path, cwd: Path, start: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own that sees the given folders: a fork of one that has loaded
    what it needs, or with `start` a new one.
    """
    environment = environment_of(*sites, cwd=cwd)
    words = ["-m", "harness", *arguments]
    if not start:
        return warm.run(words, cwd=cwd, environment=environment)
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def environment_of(*sites: Path, cwd: Path) -> dict[str, str]:
    """Where a process finds the given folders and the checkout, with its cache in the working directory."""
    paths = [*map(str, sites), str(ROOT), str(ROOT / "plugins")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(cwd / "cache")}


class Folder:
    """A folder on the import path that plugins are written into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: list[str] = []

    def plugin(self, module: str, content: str) -> EntryPoint:
        (self.path / f"{module}.py").write_text(content)
        self.modules.append(module)
        return EntryPoint(name=module, value=module, group="harness")
