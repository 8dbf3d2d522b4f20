"""The hooks: the whole surface between harness and a plugin. Chapter one of the code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from harness.method import Method
    from harness.stage import Stage

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


@hookspec
def harness_methods() -> list[type[Method]]:  # type: ignore[empty-body]
    """Methods this plugin offers; each class names its axis."""


@hookspec
def harness_axes() -> list[type[Method]]:  # type: ignore[empty-body]
    """Axes this plugin adds: contract classes with `axis` and, where a stage may be absent, `none`."""


@hookspec
def harness_stages() -> list[type[Stage]]:  # type: ignore[empty-body]
    """Stages this plugin adds; each states its axes, what it reads and makes, and its place in the order."""


@hookspec
def harness_conf() -> list[str]:  # type: ignore[empty-body]
    """Config folders this plugin ships, as `pkg://package.conf`, with experiments or presets."""


@hookspec
def harness_suites() -> list[str]:  # type: ignore[empty-body]
    """Folders of suites this plugin ships, as `pkg://package.folder`, for `harness check`: `test_<axis>.py`
    for an axis of its own, `test_<stage>.py` for a stage; without `__init__.py`."""


@hookspec
def harness_run_started(run: dict[str, Any]) -> None:
    """A cell is about to run its first stage; `run` holds cell id, config, sweep and provenance."""


@hookspec
def harness_stage_finished(run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
    """A stage's artifact is in the store, computed or found there (`facts["reused"]`)."""


@hookspec
def harness_training_step(run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
    """A logging step of the training loop: loss, learning rate, tokens/s, gradient norm."""


@hookspec
def harness_cell_finished(run: dict[str, Any], record: dict[str, Any]) -> None:
    """A cell has its outcome; `record` is what was written to the store."""
