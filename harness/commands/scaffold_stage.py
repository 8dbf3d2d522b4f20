"""The text of a scaffolded stage: a small one that works, on the public surface alone."""

from __future__ import annotations

TEXT = '''"""{words}: say here what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import (
    ConfigError,
    Delta,
    Stage,
    Work,
    hookimpl,
    linear_layers,
    open_dense,
    prove,
    snapshot,
    weight_matrix,
)

if TYPE_CHECKING:
    from harness import Cell


class {words}(Stage):
    """Multiplies the weights of every linear layer by a factor.

    Raises: ConfigError for a factor of zero
    """

    name = "{name}"
    after = ("align",)  # stages before it in the default order
    before = ("quantize",)  # and behind it
    needs = ("model",)  # kinds of artifact it reads; `axes` names the axes whose choices it reads
    produces = "model"
    trial = ("{name}.factor=0.5",)  # how `harness check` tries it

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        factor: float = 1.0
        """What weights are multiplied by; 1 = the stage is left out."""

        def __post_init__(self) -> None:
            if self.factor == 0:
                raise ConfigError("{name}.factor=0 leaves nothing of the weights; 1 leaves the stage out")

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return bool(cell.stage_config(cls.name).factor != 1)

    @classmethod
    def draws(cls, part: str, choices: Any) -> bool:
        return False  # True where `run` draws from work.stream(Purpose....): the seed is in the key then

    def run(self, work: Work) -> dict[str, Any]:
        loaded = open_dense(work, what="{name}")
        before = snapshot(loaded.model)
        layers = linear_layers(loaded.model)
        for layer in layers.values():
            weight_matrix(layer).mul_(work.config.factor)  # a view of the parameter
        effects = prove(before, snapshot(loaded.model), what="{name}")
        loaded.save(work.out, delta=Delta.weights)
        return {{"layers": len(layers), "effects": {{"{name}": effects}}}}


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [{words}]
'''

TEST = '''"""Facts about the stage {name}; compare it with independent code or with a closed form."""

from harness.compose import compose
from harness.registry.known import registry


def test_it_is_left_out_unless_asked_for() -> None:
    stage = registry().stage("{name}")
    assert not stage.active(compose())
    assert stage.active(compose([*stage.trial]))
'''


def stage(name: str) -> str:
    """The module of a stage."""
    return TEXT.format(name=name, words=class_name(name))


def test(name: str) -> str:
    """A test of it; facts against an oracle are for the author to add."""
    return TEST.format(name=name)


def class_name(name: str) -> str:
    """`my_step` -> `MyStep`."""
    return "".join(word.capitalize() for word in name.split("_"))
