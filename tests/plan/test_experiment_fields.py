"""Every place of an experiment's YAML with what does not belong there: refused by name, or planned.

Never an internal error, and never an answer that does not say which field is meant.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from wrong_places import places, with_wrong

from harness.compose import Experiment
from harness.compose.experiment import EXAMPLES
from harness.errors import ConfigError, HarnessError
from harness.plan.make import make_plan
from harness.report.intended import check_layout
from harness.store import Store

QUESTION: dict[str, Any] = {
    "factors": {
        "attention": ["full", "linear"],
        "rate": {"pretrain.learning_rate": [1e-3, 1e-2]},
        "way": {"a": {"optimizer": "adamw"}, "b": {"optimizer": "lion", "optimizer.weight_decay": 0.1}},
    },
    "baseline": {"attention": "full", "way": "a"},
    "seeds": [0, 1],
    "zip": [["rate", "way"]],
    "exclude": [{"attention": "linear", "way": ["b"]}],
    "primary": ["bits_per_byte"],
    "claims": [{"says": "bits_per_byte[way=a] < bits_per_byte[way=b]", "source": "x", "answers": True}],
    "report": {
        "rows": ["attention"],
        "metrics": [{"metric": "bits_per_byte", "format": ".2f", "scale": 1.0, "better": "lower"}],
        "labels": {"full": "all"},
        "where": {"way": ["a", "b"]},
        "baseline": {"attention": "full"},
        "published": {"rows": [{"where": {"attention": "full"}, "values": {"bits_per_byte": 1.0}}]},
        "scaling": {"loss": "a", "size": "b", "data": "c", "held_out": {"way": "a"}},
    },
    "where_chosen": {"corpus.stdlib.max_bytes": 100_000},
    "at_most": {"pretrain.batch_size": 8},
}
TUNED = {
    "factors": {"attention": ["full", "linear"]},
    "tune": {
        "trials": 2,
        "search": "random",
        "metric": "bits_per_byte",
        "by": ["attention"],
        "space": {
            "pretrain.batch_size": [8, 16],
            "pretrain.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
        },
        "methods": {"attention": {"linear": {"pretrain.batch_size": [4, 8]}}},
    },
}
LISTED = {
    "factors": {"attention": ["full", "linear"]},
    "cells": [{"attention": "full", "seed": 1}, {"attention": "linear"}],
}
WRONG: list[Any] = [
    *(3, -1.5, "x", "", True, None, float("nan"), [], [1], ["x"], [[1]], {}, {"a": 1}, {1: 2, "x": None}),
    *({"a": {"b": 1}}, {"a": [{"b": None}]}),
]


CASES = [
    (stated, place, wrong)
    for stated in (QUESTION, TUNED, LISTED)
    for place in places(stated)
    for wrong in WRONG
]
TYPED = {f.name for f in fields(Experiment)}


def refused_by_type(stated: dict[str, Any]) -> str:
    """What the types of an experiment's fields say, before anything is composed."""
    try:
        Experiment(**{key: value for key, value in stated.items() if key in TYPED})
    except HarnessError as error:
        return str(error)
    return ""


def is_named(place: Sequence[Any], wrong: Any, said: str) -> bool:
    """Whether a message says a key of a place, or what stands there that does not belong, as a whole word.

    Names of one letter stand in any text; they are named where they are quoted. What a field misses is of its
    kind: `No factor (in zip) is called 'x'` is said of `factors`.
    """
    words = [rf"\b{re.escape(str(key))}\b" for key in place if len(str(key)) > 1]
    quoted = [wrong] if isinstance(wrong, str) else list(wrong) if isinstance(wrong, list | dict) else []
    words += [re.escape(repr(str(item))) for item in (*quoted, *place)]
    words += [rf"^No {re.escape(str(place[0]).removesuffix('s'))} \\("]
    return any(re.search(word, said) for word in words)


def few() -> list[Any]:
    """Of each field a case that its type takes; others each week."""
    draw = random.Random(int(time.time() // (7 * 86400)))
    taken = [case for case in draw.sample(CASES, len(CASES)) if not refused_by_type(with_wrong(*case))]
    return list({case[1][0]: case for case in taken}.values())


def answer(stated: dict[str, Any], file: Path, store: Store) -> str:
    """What the plan says; empty where it plans."""
    file.write_text(yaml.safe_dump(stated, sort_keys=False))
    try:
        check_layout(make_plan([f"experiment={file}"], store=store))
    except HarnessError as error:
        return str(error)
    return ""


def refuse_nothing_unnamed(cases: list[Any], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for stated, place, wrong in cases:
        said = answer(with_wrong(stated, place, wrong), tmp_path / "mine.yaml", store)
        case = f"{'.'.join(map(str, place))}={wrong}"
        assert not said or is_named(place, wrong, said), f"{case} is refused without a name: {said}"


def test_what_is_damaged_here_is_planned_as_it_stands(tmp_path: Path) -> None:
    for stated in (QUESTION, LISTED):
        assert answer(stated, tmp_path / "mine.yaml", Store(tmp_path / "store")) == ""


def test_a_range_for_a_factor_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    said = answer({**TUNED, "factors": {}}, tmp_path / "mine.yaml", Store(tmp_path / "store"))
    assert said == "No factor (in tune) is called 'attention'. Known: none"


def test_what_the_type_of_a_field_refuses_is_named() -> None:
    refused = 0
    for stated, place, wrong in CASES:
        said = refused_by_type(with_wrong(stated, place, wrong))
        refused += bool(said)
        assert not said or is_named(place, wrong, said), f"{place} {wrong!r}: {said}"
    assert refused > len(CASES) / 4


def test_some_places_hold_what_they_cannot(tmp_path: Path) -> None:
    refuse_nothing_unnamed(few(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("field", [*QUESTION, "tune", "cells"])
def test_every_place_of_a_field_holds_what_it_cannot(field: str, tmp_path: Path) -> None:
    refuse_nothing_unnamed([case for case in CASES if case[1][0] == field], tmp_path)


@pytest.mark.parametrize("field", EXAMPLES)
def test_the_example_of_a_field_is_right(field: str) -> None:
    stated = yaml.safe_load(EXAMPLES[field])
    assert list(stated) == [field]
    Experiment(**stated)


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("factors", {"a": 3}, "factors.a is an integer (3), not a list or a mapping; write e.g. factors: {"),
        ("factors", {"a": {"x": "s"}}, "factors.a.x is text ('s'), not a list or a mapping or null"),
        ("exclude", ["a"], "exclude.0 is text ('a'), not a mapping"),
        ("zip", [3], "zip.0 is an integer (3), not text or a list"),
        ("cells", [["a"]], "cells.0 is a list, not a mapping"),
        ("claims", [{"source": "x"}], "claims.0 lacks says"),
        ("tune", {"methods": {"a": 3}}, "tune.methods.a is an integer (3), not a mapping"),
        ("report", ["a"], "report is a list, not text or a mapping or null; write e.g. report: attention"),
    ],
)
def test_a_wrong_place_is_named_with_what_belongs_there(field: str, wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment(**{field: wrong})
    assert str(caught.value).startswith(said)
