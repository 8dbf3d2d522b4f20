"""Parametrizes every suite over the registry: a test takes `method`, one of the file's `AXIS`, or `stage`."""

from typing import Any

import pytest

from harness.conformance._asked import ONLY, PACKAGE, is_asked
from harness.registry.known import registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(PACKAGE, help="only methods and stages of this distribution")
    parser.addoption(
        ONLY, action="append", help="only an axis, a method (`axis=name`) or a stage (`stage=name`)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: what a change seldom breaks; `-m slow` runs it")
    config.addinivalue_line("markers", "nothing: the suite has no method or stage to test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out suites of axes on which the asked distribution has no method."""
    left_out = [item for item in items if item.get_closest_marker("nothing")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stage" in metafunc.fixturenames:
        _over_stages(metafunc)
    if "method" not in metafunc.fixturenames:
        return
    axis = getattr(metafunc.module, "AXIS", None)
    known = registry()
    methods = [
        method
        for method in (known.all() if axis is None else known.methods(axis).values())
        if not (method.optional and method.name == "none") and is_asked(metafunc.config, method)
    ]
    if not methods:
        metafunc.parametrize("method", [pytest.param(None, marks=pytest.mark.nothing)])
        return
    metafunc.parametrize("method", methods, ids=[f"{method.axis}={method.name}" for method in methods])


def _over_stages(metafunc: pytest.Metafunc) -> None:
    stages: list[Any] = [stage for stage in registry().stages.values() if is_asked(metafunc.config, stage)]
    found = stages or [pytest.param(None, marks=pytest.mark.nothing)]
    metafunc.parametrize("stage", found, ids=lambda stage: f"stage={stage.name}" if stage else "none")
