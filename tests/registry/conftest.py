"""A folder on the import path that plugins are written into."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from third_party import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Folder(tmp_path)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
