"""The index of what is installed: written whole, and gone once its environment is long gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.errors import PluginError
from harness.registry import index


def test_indexes_of_other_environments_are_kept_for_a_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "harness"
    folder.mkdir(mode=0o700)
    days = {"registry-recent.json": 29, "registry-old.json": 31, "another-tool.json": 31}
    for name, age in days.items():
        (folder / name).write_text("{}")
        then = time.time() - age * 86400
        os.utime(folder / name, (then, then))
    assert index.read(fresh=True)["methods"]
    left = {path.name for path in folder.iterdir()}
    assert {"registry-recent.json", "another-tool.json"} < left
    assert "registry-old.json" not in left
    assert len(left) == 3


def test_a_harness_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "entry_points", lambda *, group: [])
    with pytest.raises(PluginError, match="pip install harness-lm"):
        index.read()
