"""Keys: equal options give equal keys, and nothing without a canonical form enters one."""

import enum
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.method import Choice, Method, model_ref
from harness.paths import path_ref
from harness.store.keys import canonical, digest, stage_key


class Colour(enum.Enum):
    red = 1


class _Axis(Method):
    axis = "paint"


class _Paint(_Axis):
    name = "oil"

    @dataclass(frozen=True, kw_only=True)
    class Config(_Axis.Config):
        colour: Colour = Colour.red
        layers: tuple[int, ...] = (1, 2)
        teacher: str = model_ref()
        pattern: str = path_ref()


def key(**changes: object) -> str:
    material: dict[str, object] = {
        "stage": "pretrain",
        "part": "",
        "nodes": {"paint": Choice(axis="paint", method=_Paint, config=_Paint.Config())},
        "config": {},
        "inputs": {"tokens": "a"},
        "files": {"paint.pattern": "a.png 00"},
        "seed": 0,
        "numerics": {"device": "cpu"},
        "fingerprint": "f",
    }
    return stage_key(**{**material, **changes})[0]  # type: ignore[arg-type]


def test_canonical_json_does_not_depend_on_order_or_container() -> None:
    assert canonical({"b": (1, 2), "a": Colour.red}) == canonical({"a": "red", "b": [1, 2]})
    assert canonical({1, 3, 2}) == "[1,2,3]"
    assert canonical(Path("x/y")) == '"x/y"'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"f": print}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be part of a key"):
        digest(value)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "align"},
        {"part": "x"},
        {"seed": 1},
        {"inputs": {"tokens": "b"}},
        {"numerics": {"device": "cuda"}},
        {"fingerprint": "g"},
        {"files": {"paint.pattern": "a.png 01"}},
        {"config": {"steps": 1}},
        {"nodes": {"paint": Choice(axis="paint", method=_Paint, config=_Paint.Config(layers=(1,)))}},
    ],
)
def test_everything_that_determines_a_result_changes_its_key(change: dict[str, object]) -> None:
    assert key(**change) != key()


def test_a_model_reference_enters_the_key_as_its_artifact_only() -> None:
    named = _Paint.Config(teacher="path:/elsewhere")
    assert key(nodes={"paint": Choice(axis="paint", method=_Paint, config=named)}) == key()
    assert key(inputs={"tokens": "a", "paint.teacher": "c"}) != key()


def test_files_enter_the_key_by_their_content_only() -> None:
    named = _Paint.Config(pattern="elsewhere/a.png")
    assert key(nodes={"paint": Choice(axis="paint", method=_Paint, config=named)}) == key()
