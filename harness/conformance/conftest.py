"""Parametrizes every suite over the registry: each test takes `method`, one of the file's `AXIS`."""

import pytest

from harness.registry import registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--package", help="only methods of this distribution")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nothing: the suite has no method to test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out suites of axes on which the asked distribution has no method."""
    left_out = [item for item in items if item.get_closest_marker("nothing")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
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
