"""What the generated pages are about: the axes, stages and experiments of this distribution."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from harness.compose import config_dir
from harness.compose.schema import stage_axes
from harness.method import Method
from harness.registry.known import registry
from harness.registry.modules import OWN
from harness.stage import Stage

REPORTS = Path(__file__).parents[3] / "reports"


@functools.cache
def axes() -> dict[str, type[Method]]:
    """The axes that this distribution has methods on, in the order in which methods act."""
    return {name: axis for name, axis in registry().axes.items() if own(name)}


@functools.cache
def stages() -> dict[str, type[Stage]]:
    """The built-in stages in the default order."""
    return {n: s for n, s in registry().stages.items() if s.__module__.partition(".")[0] == "harness"}


def own(axis: str) -> list[type[Method]]:
    known = registry()
    return [m for m in known.methods(axis).values() if known.source(m).package == OWN]


def readers(axis: str) -> list[str]:
    """Stages whose keys an axis enters."""
    return [name for name in stages() if axis in stage_axes(name)]


def compared(axis: str) -> list[str]:
    """Shipped experiments that vary an axis."""
    found = []
    for path in sorted((config_dir() / "experiment").glob("*.yaml")):
        factors = yaml.safe_load(path.read_text(encoding="utf-8")).get("factors", {})
        if axis in set(_keys(factors)):
            found.append(path.stem)
    return found


def _keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _keys(value)


REAL = "_real"
"""How a sweep of an experiment at scale=real is called after it."""


def question(experiment: str) -> str:
    """What a shipped experiment asks, at whatever scale."""
    text = (config_dir() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text).get("question", ""))


def asked(report: Path) -> str:
    """What a committed report asks: the line below its title."""
    return (report / "README.md").read_text(encoding="utf-8").splitlines()[2]


def verdicts(report: Path) -> list[str]:
    """What a committed report says of each of its claims."""
    _, _, rest = (report / "README.md").read_text(encoding="utf-8").partition("\n## Claims\n")
    table = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [line.split(" | ")[1] for line in table[2:]]
