"""Parametrizes every suite over the registry: a test takes `method`, one of the file's `AXIS`, or `stage`."""

from typing import Any

import pytest

from harness.registry.known import registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--package", help="only methods of this distribution")


def pytest_configure(config: pytest.Config) -> None:
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
    package = metafunc.config.getoption("--package", default=None)
    methods = [
        method
        for method in (known.all() if axis is None else known.methods(axis).values())
        if not (method.optional and method.name == "none")
        and (package is None or known.source(method).package == package)
    ]
    if not methods:
        metafunc.parametrize("method", [pytest.param(None, marks=pytest.mark.nothing)])
        return
    metafunc.parametrize("method", methods, ids=[f"{method.axis}={method.name}" for method in methods])


def _over_stages(metafunc: pytest.Metafunc) -> None:
    package = metafunc.config.getoption("--package", default=None)
    known = registry()
    stages: list[Any] = [
        stage
        for name, stage in known.stages.items()
        if package is None or known.stage_source(name).package == package
    ]
    found = stages or [pytest.param(None, marks=pytest.mark.nothing)]
    metafunc.parametrize("stage", found, ids=lambda stage: f"stage={stage.name}" if stage else "none")
