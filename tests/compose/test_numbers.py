"""No option takes a number that it can make nothing of: of every method and stage, and of a third party's."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import signal
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import signed
from harness.axes import MODEL_AXES
from harness.compose.schema import model_options
from harness.compose.typed import instance
from harness.errors import ConfigError
from harness.method import SIGNED, Method
from harness.plan.make import make_plan
from harness.registry.known import registry
from harness.store import Store

CONFIGS: dict[str, type[Any]] = {f"{method.axis}={method.name}": method.Config for method in registry().all()}
CONFIGS |= {name: stage.Config for name, stage in registry().stages.items()}


def numbers(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """Options that take a number, or a number or null."""
    hints = typing.get_type_hints(config)
    kinds = {
        f.name: set(typing.get_args(hints[f.name]) or (hints[f.name],)) for f in dataclasses.fields(config)
    }
    return [
        f for f in dataclasses.fields(config) if kinds[f.name] <= {int, float, type(None)} and kinds[f.name]
    ]


OPTIONS = [(name, f) for name, config in CONFIGS.items() for f in numbers(config)]


@pytest.mark.parametrize(("owner", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_no_option_takes_a_number_that_says_nothing(owner: str, option: dataclasses.Field[Any]) -> None:
    signs = SIGNED in option.metadata or (isinstance(option.default, int | float) and option.default < 0)
    for value in (math.nan, math.inf, *(() if signs else (-1,))):
        with pytest.raises(ConfigError, match=option.name):
            instance(CONFIGS[owner], {option.name: value}, where="here")


BUILT = [
    *((f"{m.axis}={m.name}", f"{m.axis}.{f.name}") for m in registry().all() for f in numbers(m.Config)
      if m.axis in (*MODEL_AXES, "peft")),
    *(("model=mini", f"model.{f.name}") for f in numbers(model_options())),
]  # fmt: skip
"""What a plan builds a model of, without its weights."""


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "option"), BUILT, ids=str)
def test_no_number_is_too_large_for_the_plan(choice: str, option: str, tmp_path: Path) -> None:
    """`model.num_layers=1000000000000` took all memory; the plan refuses it, or says what it would take."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    make_plan(["scale=smoke"], store=Store(tmp_path))
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**32, limits[1]))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(30)
    try:
        with contextlib.suppress(ConfigError):
            make_plan([choice, f"{option}={10**12}"], store=Store(tmp_path))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Own(Method.Config):
    """A third party's options, which check nothing."""

    bias: float = signed(1.0)
    shift: float = -0.5
    inner: Inner = dataclasses.field(default_factory=Inner)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: list[float] = dataclasses.field(default_factory=list)
    label: str = "-1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inner": {"share": -0.1}}, r"here\.inner\.share=-0\.1 must not be negative"),
        ({"weights": {"code": math.nan}}, r"here\.weights\.code=nan must be a finite number"),
        ({"steps": [1.0, -math.inf]}, r"here\.steps\.1=-inf must be a finite number"),
        ({"bias": math.inf}, r"here\.bias=inf must be a finite number"),
    ],
)
def test_numbers_inside_options_are_checked_too(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instance(Own, given, where="here")


def test_numbers_that_may_be_negative_are() -> None:
    made = instance(Own, {"bias": -2.0, "shift": -1.0, "weights": {"code": -1.0}}, where="here")
    assert (made.bias, made.shift, made.weights) == (-2.0, -1.0, {"code": -1.0})
