"""A node of the stage graph: what a cell asks of a stage, and everything that its key is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.method import Choice
from harness.model.pattern import every_choice
from harness.plan.files import flat
from harness.store.fingerprint import Fingerprint, python_version, versions
from harness.store.keys import Plain

if TYPE_CHECKING:
    from harness.compose import Cell
    from harness.spec import ModelSpec
    from harness.stage import Choices, Stage


@dataclass(frozen=True, kw_only=True)
class Node:
    """One artifact that some cell asks for: everything needed to make it."""

    key: str
    stage: str
    """Name in the cell's order, suffix included."""
    maker: type[Stage]
    """The class that makes it."""
    axes: tuple[str, ...]
    """Those that it reads: its class's, and what plugins add."""
    part: str
    kind: str
    inputs: dict[str, str]
    """Keys by the name of the input: a kind, or `<axis>.<option>` of a model reference
    (`<axis>.<method>.<option>` where the axis takes several)."""
    seed: int | None
    """None where it draws nothing, so that all seeds share it."""
    config: Any
    choices: Choices
    cell: Cell
    """The first cell that asked for it."""
    device: str
    material: dict[str, Any]
    """What the key is the hash of."""
    libraries: tuple[str, ...]
    """Libraries its code imports, to be loaded beforehand."""
    alone: bool
    """Whether nothing else may run beside it, as for a measured speed."""

    @property
    def threads(self) -> int:
        """Processor threads it computes with on a CPU, as its own options say."""
        return int(getattr(self.config, "threads", None) or 1)

    @property
    def title(self) -> str:
        """For people: `evaluate lm_eval.recall`."""
        return f"{self.stage} {self.part}".strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """What a cell asks of a part of a stage, whatever its seed and inputs."""

    stage: str
    maker: type[Stage]
    part: str
    config: Any
    read: Choices
    """All that the stage reads, before `narrow`."""
    choices: Choices
    spec: ModelSpec | None
    device: str
    draws: bool
    nodes: Plain
    """Of the chosen methods and the model, as a key holds them; so are the next three."""
    options: Plain
    files: Plain
    numerics: Plain
    source: Fingerprint
    alone: bool


def seed_of(cell: Cell, stage: str) -> int:
    """The seed of a stage: `seed` from `seed_from` on, `base_seed` before."""
    if cell.seed_from is None or cell.seed_from not in cell.stages:
        return cell.seed
    order = cell.stages.index
    return cell.seed if order(stage) >= order(cell.seed_from) else cell.base_seed


def device_of(cell: Cell) -> str:
    """The device type of a cell: `cpu` or `cuda`; `auto` takes CUDA where there is one."""
    if cell.device != "auto":
        return cell.device
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def identities(choices: Choices) -> Iterator[Any]:
    for axis, value in choices.items():
        yield axis
        yield from map(id, value) if isinstance(value, tuple) else (id(value),)


def modules_of(maker: type[Stage], choices: Choices) -> set[str]:
    """Where the code stands that makes a stage."""
    chosen = [choice.method.code_of(choice.config) for choice in flat(choices)]
    return {maker.__module__, *itertools.chain.from_iterable(chosen)}


def layer_modules(cell: Cell, choices: Choices) -> set[str]:
    """Where the code stands of methods that single layers have, in a stage that builds a model."""
    spec = cell.spec()
    if spec is None or not spec.layer_pattern or "architecture" not in choices:
        return set()
    shape = {axis: choice for axis, choice in choices.items() if isinstance(choice, Choice)}
    return {choice.method.__module__ for choice in every_choice(spec, shape)}


def versions_of(source: Fingerprint) -> dict[str, str]:
    """Versions of the libraries that code imports, and of Python."""
    return {"python": python_version(), **versions(source.libraries)}
