"""The chosen methods of one training run, built once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from harness.axes import BUILTIN
from harness.axes.batch_schedule import BatchSchedule
from harness.axes.optimizer import Optimizer
from harness.axes.parallelism import Parallelism
from harness.axes.precision import Precision
from harness.axes.schedule import Schedule
from harness.axes.stabilizer import Stabilizer
from harness.method import Choice, Method


@dataclass(frozen=True, kw_only=True)
class Methods:
    """What trains the model, and every other chosen method that acts on training."""

    optimizer: Optimizer
    schedule: Schedule
    batch_schedule: BatchSchedule
    stabilizers: tuple[Stabilizer, ...]
    precision: Precision
    parallelism: Parallelism
    others: tuple[Method, ...] = ()
    """Methods of other axes that are no modules; modules are found in the model itself."""

    @classmethod
    def build(cls, choices: Mapping[str, Choice | tuple[Choice, ...]]) -> Methods:
        """The methods of a stage's choices; a stage may do without stabilizers."""
        choices = dict(choices)

        def one(axis: str) -> Method:
            choice = choices[axis]
            assert isinstance(choice, Choice)
            built: Method = choice.build()
            return built

        return cls(
            optimizer=one("optimizer"),  # type: ignore[arg-type]
            schedule=one("schedule"),  # type: ignore[arg-type]
            batch_schedule=one("batch_schedule"),  # type: ignore[arg-type]
            stabilizers=tuple(choice.build() for choice in _several(choices.get("stabilizer"))),
            precision=one("precision"),  # type: ignore[arg-type]
            parallelism=one("parallelism"),  # type: ignore[arg-type]
            others=tuple(
                choice.build()
                for axis in sorted(choices, key=_axis_order)
                if axis not in cls.__dataclass_fields__ and axis != "stabilizer"
                for choice in _several(choices[axis])
                if acts(choice.method) and not issubclass(choice.method, nn.Module)
            ),
        )

    def actors(self, model: nn.Module, point: str) -> list[Method]:
        """The methods that implement a point (`loss_terms`, `on_gradients`, ...), in the order of axes."""
        own: Iterable[Method] = (
            *self.others,
            self.optimizer,
            self.schedule,
            self.batch_schedule,
            *self.stabilizers,
            self.precision,
            self.parallelism,
        )
        modules = [module for module in model.modules() if isinstance(module, Method)]
        return [method for method in (*modules, *own) if acts(type(method), point)]


def acts(method: type[Method], *points: str) -> bool:
    """Whether a class implements one of the published points of training."""
    contract = Stabilizer if issubclass(method, Stabilizer) else Method
    points = points or ("loss_terms", "rate", "on_step", "on_gradients", "modify_model")
    return any(getattr(method, point) is not getattr(contract, point) for point in points)


def _several(choices: Choice | tuple[Choice, ...] | None) -> tuple[Choice, ...]:
    return () if choices is None else choices if isinstance(choices, tuple) else (choices,)


def _axis_order(axis: str) -> int:
    return BUILTIN.index(axis) if axis in BUILTIN else len(BUILTIN)
