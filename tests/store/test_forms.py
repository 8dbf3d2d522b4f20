"""A form says of JSON and YAML where it is not met, in words, and of what meets it nothing."""

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from harness.forms import misfit


class Part(TypedDict):
    """A mapping with keys of which one may be left out."""

    name: str
    size: NotRequired[float | None]


@dataclass
class Kept:
    """A mapping whose second key has a default."""

    status: str
    attempts: int = 1


MET: list[tuple[Any, Any]] = [
    (3, float),
    (True, bool),
    (None, str | None),
    ([1, 2], list[int]),
    ((1, 2), list[int]),
    ([], tuple[str, ...]),
    ([1, "a"], tuple[int, str]),
    ({8: 1}, dict[Any, int]),
    ({"name": "a", "other": []}, Part),
    ({"name": "a", "size": None}, Part),
    ({"status": "ok"}, Kept),
    ("b", Literal["a", "b"] | None),
    ([{"x": [None]}], list[str | dict[str, Any]]),
    ({1: {2}}, Any),
]
NOT_MET = [
    (True, int, "it is true or false (True), not an integer"),
    (1, bool, "it is an integer (1), not true or false"),
    ("1", float | None, "it is text ('1'), not a number or null"),
    ([1, "a"], list[int], "1 is text ('a'), not an integer"),
    ({"a": {"b": [0, {}]}}, dict[str, dict[str, list[int]]], "a.b.1 is a mapping, not an integer"),
    ([1], tuple[int, str], "it is a list of 1, not of 2"),
    ({"size": 1}, Part, "it lacks name"),
    ({1: 2, "x": 3}, dict[str, int], "it has the key 1, which is no text"),
    ({"name": "a", "size": "b"}, Part, "size is text ('b'), not a number or null"),
    ({"status": "ok", "attempts": 1.5}, Kept, "attempts is a number (1.5), not an integer"),
    ("c", Literal["a", "b"] | None, "it is text ('c'), not 'a' or 'b' or null"),
    (1, Literal["1", True], "it is an integer (1), not '1' or True"),
    (b"x", str, "it is bytes, not text"),
    # Of a union, the branch whose kind the value has says what is wrong inside it.
    ({"x": 3}, list[int] | dict[str, list[int]], "x is an integer (3), not a list"),
    (["a" * 100], list[int], "0 is text, not an integer"),
]


@pytest.mark.parametrize(("value", "form"), MET, ids=str)
def test_what_meets_its_form_is_not_spoken_of(value: object, form: object) -> None:
    assert misfit(value, form) == ""


@pytest.mark.parametrize(("value", "form", "text"), NOT_MET, ids=str)
def test_the_place_what_stands_there_and_what_should_are_named(value: Any, form: Any, text: str) -> None:
    assert misfit(value, form) == text


def test_the_name_of_the_whole_stands_before_its_places() -> None:
    assert misfit({"a": 1}, dict[str, str], "config") == "config.a is an integer (1), not text"
    assert misfit(1, str, "config") == "config is an integer (1), not text"
