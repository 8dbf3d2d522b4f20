"""Stores with simulated records, made once a session."""

from pathlib import Path

import pytest
import simulate


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve configurations, three seeds, two tasks with items."""
    return simulate.experiment(tmp_path_factory.mktemp("store"))
