"""Which methods and stages a run of the suites is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.method import Method
from harness.registry.known import registry

if TYPE_CHECKING:
    import pytest

    from harness.stage import Stage

PACKAGE, ONLY = "--package", "--only"
"""Options of pytest that `harness check` hands on: a distribution, and what of it."""


def is_asked(config: pytest.Config, kind: type[Method] | type[Stage]) -> bool:
    """Whether a method or stage is of the asked distribution, and among what is asked of it."""
    known = registry()
    package, only = config.getoption(PACKAGE, default=None), config.getoption(ONLY, default=None)
    method = issubclass(kind, Method)
    source = known.source(kind) if issubclass(kind, Method) else known.stage_source(kind.name)
    axis = kind.axis if issubclass(kind, Method) else "stage"
    if package is not None and source.package != package:
        return False
    return not only or f"{axis}={kind.name}" in only or (method and axis in only)
