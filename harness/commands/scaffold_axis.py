"""The text of a scaffolded axis: its contract, a method, the stage that reads it, and a suite."""

from __future__ import annotations

from harness.commands.scaffold_stage import class_name

CONTRACT = '''"""{words}: say here what varies."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from harness import Method, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class {words}(Method):
    """What is done to the weight of every linear layer."""

    axis = "{name}"
    default = "none"
    optional = True  # there is a `none`, made by the core, which leaves the stage out
    moves_facts = frozenset()  # measured facts that its methods are bound to move, e.g. "dtype"

    @abstractmethod
    def changed(self, weight_OI: Tensor) -> Tensor:
        """The new weight.

        Shapes: out x in, both
        """
        raise NotImplementedError


@hookimpl
def harness_axes() -> list[type[Method]]:
    return [{words}]


@hookimpl
def harness_suites() -> list[str]:
    return ["pkg://{module}.suites"]
'''

METHOD = '''"""Shrink: say here what it does; a first method of {name}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import ConfigError, Method, hookimpl

from {module}.{name} import {words}

if TYPE_CHECKING:
    from torch import Tensor


class Shrink({words}):
    """Multiplies every weight by a factor.

    Raises: ConfigError unless 0 < factor < 1
    """

    name = "shrink"

    @dataclass(frozen=True, kw_only=True)
    class Config({words}.Config):
        factor: float = 0.5
        """What weights are multiplied by."""

        def __post_init__(self) -> None:
            if not 0 < self.factor < 1:
                raise ConfigError(f"{name}.factor={{self.factor}} must lie between 0 and 1")

    config: Config

    def changed(self, weight_OI: Tensor) -> Tensor:
        return weight_OI * self.config.factor


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Shrink]
'''

STAGE = '''"""Stage apply_{name}: every linear layer has the weight that {name} makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness import Delta, Stage, Work, hookimpl, linear_layers, open_dense, prove, snapshot, weight_matrix

if TYPE_CHECKING:
    from harness import Cell


class Apply{words}(Stage):
    """Applies the chosen method of {name} to every linear layer."""

    name = "apply_{name}"
    after = ("align",)  # stages before it in the default order
    before = ("quantize",)  # and behind it
    axes = ("{name}",)
    needs = ("model",)
    produces = "model"
    trial = ("{name}=shrink",)  # how `harness check` tries it

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("{name}", stage=cls.name) is not None

    @classmethod
    def draws(cls, part: str, choices: Any) -> bool:
        return False  # True where `run` draws from work.stream(Purpose....): the seed is in the key then

    def run(self, work: Work) -> dict[str, Any]:
        method = work.one("{name}").build()
        what = f"{name}={{method.name}}"
        loaded = open_dense(work, what=what)
        before = snapshot(loaded.model)
        layers = linear_layers(loaded.model)
        with torch.no_grad():
            for layer in layers.values():
                weight_OI = weight_matrix(layer)  # a view of the parameter
                weight_OI.copy_(method.changed(weight_OI.clone()))
        effects = prove(before, snapshot(loaded.model), what=what)
        loaded.save(work.out, delta=Delta.weights)
        return {{"layers": len(layers), "effects": {{"{name}": effects}}}}


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Apply{words}]
'''

SUITE = '''"""What every method of {name} must do, whoever wrote it. Plant a bug: the suite must fail once."""

import torch

from {module}.{name} import {words}

AXIS = "{name}"


def test_shape_and_number_format_stay(method: type[{words}]) -> None:
    weight_OI = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    changed_OI = method(method.Config()).changed(weight_OI.clone())
    assert changed_OI.shape == weight_OI.shape, "the shape changes"
    assert changed_OI.dtype == weight_OI.dtype, "the number format changes"
    assert torch.isfinite(changed_OI).all(), "a weight is not finite"
    assert not torch.equal(changed_OI, weight_OI), "nothing changes"
'''

TEST = '''"""Facts about {name}=shrink; compare every method with independent code or with a closed form."""

import torch

from harness.registry.known import registry


def test_every_weight_is_multiplied() -> None:
    method = registry().get("{name}", "shrink")
    weight_OI = torch.ones(2, 3)
    assert torch.equal(method(method.Config(factor=0.25)).changed(weight_OI), weight_OI / 4)
'''


def files(name: str, module: str) -> dict[str, str]:
    """The files of an axis by their path in the package `module`."""
    texts = {
        f"{name}.py": CONTRACT,
        f"{name}_shrink.py": METHOD,
        f"apply_{name}.py": STAGE,
        f"suites/test_{name}.py": SUITE,
    }
    return {
        path: text.format(name=name, module=module, words=class_name(name)) for path, text in texts.items()
    }


def test(name: str) -> str:
    """A test of the first method."""
    return TEST.format(name=name)
