"""Real distributions in a folder of their own, seen by the processes that tests start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plugins/example, installed by pip into a folder."""
    return installed("example", tmp_path_factory)


@pytest.fixture(scope="session")
def lowrank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plugins/example_stage, likewise."""
    return installed("example_stage", tmp_path_factory)


def installed(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / name
    shutil.copytree(ROOT / "plugins" / name, source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target
