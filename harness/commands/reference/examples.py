"""Commands for the generated pages: choices that the plan accepts, found by asking it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from harness.commands.reference.known import axes, own, readers
from harness.compose import Cell
from harness.compose.describe import options
from harness.compose.schema import stage_key
from harness.errors import HarnessError
from harness.method import Method
from harness.plan.assemble import Assembler
from harness.plan.problems import choices, problems
from harness.registry.known import registry
from harness.stage import Stage


@functools.cache
def example(axis: str) -> tuple[str, ...]:
    """How the first method that can be chosen, but the default, is: overrides; none where none can."""
    return next((way for method in _others(axis) if (way := chosen(method))), ())


def mounted(axis: str, stage: str) -> str:
    """A stage's own choice on an axis; `stage` is the key of its node."""
    way = example(axis) or (asked(axis, str(registry().axes[axis].default)),)
    return f"{axis}@{stage}.{way[0]}"


def chosen(method: type[Method]) -> tuple[str, ...]:
    """A method, and where needed what brings a stage or a method that reads it, as overrides of a plan."""
    alone = asked(method.axis, method.name)
    for more in ((), *((stage_example(stage),) for stage in readers(method.axis)), *_users(method.axis)):
        way = (alone, *filter(None, more))
        if not _refused(*way) and _is_read(method, *way):
            return way
    return ()


def _users(axis: str) -> Iterator[tuple[str, ...]]:
    """Methods of other axes whose result depends on an axis, alone and beside what brings another stage."""
    users = [m for other in axes() for m in own(other) if axis in getattr(m, "uses", ()) and not m.extra]
    for user in users:
        way = asked(user.axis, user.name)
        yield (way,)
        yield from ((way, brought) for stage in registry().stages if (brought := stage_example(stage)))


def _is_read(method: type[Method], *way: str) -> bool:
    return method.axis == "tracker" or any(choice.method is method for choice in choices(_cell(*way)))


def _others(axis: str) -> list[type[Method]]:
    """Methods beside the default and `none` that need no further library and no path."""
    default = registry().axes[axis].default
    plain = ("none", *default) if isinstance(default, tuple) else ("none", default)
    return [m for m in own(axis) if m.name not in plain and not m.extra and not _asks(m)]


def _asks(method: type[Method]) -> bool:
    """Whether an option's text says that it is required: a path, say."""
    return any("required" in option["doc"] for option in options(method.Config))


@functools.cache
def stage_example(name: str) -> str:
    """What is chosen so that a cell has a stage; empty where it has it by default.

    Raises: LookupError where no choice on its axes and no option brings it
    """
    stage = registry().stages[name]
    for asked in ("", *_openings(stage)):
        way = (asked,) if asked else ()
        if stage.active(_cell(*way)) and not _refused(*way):
            return asked
    raise LookupError(f"no choice on its axes and no option brings the stage {name}")


def _openings(stage: type[Stage]) -> Iterator[str]:
    """What may bring a stage: a choice on an axis that can leave it out, or an option that is 0."""
    for axis in stage.axes:
        if registry().axes[axis].optional:
            yield from (asked(axis, method.name) for method in _others(axis))
    for option in options(stage.Config):
        if option["default"] == 0:
            yield f"{stage_key(stage.name)}.{option['name']}=1"


def _refused(*way: str) -> bool:
    """Whether something speaks against a cell before it runs."""
    try:
        return any(problem.fatal for problem in problems(_cell(*way)))
    except HarnessError:
        return True


def _cell(*way: str) -> Cell:
    """The default cell at the smallest scale, with overrides."""
    return _assembler().cell(way)


@functools.cache
def _assembler() -> Assembler:
    made = Assembler(["scale=smoke"])
    made.foresee([asked(axis, method.name)] for axis in axes() for method in _others(axis)[:2])
    return made


def asked(axis: str, method: str) -> str:
    return f"{axis}=[{method}]" if registry().axes[axis].many else f"{axis}={method}"
