"""What a stage is handed, and what it may not reach past it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import PluginError
from harness.method import model_ref
from harness.registry.known import registry
from harness.stage import Stage, Work

ASKED: dict[str, Callable[[Any, str], Any]] = {
    "[]": lambda handed, name: handed[name],
    "get": lambda handed, name: handed.get(name),
    "in": lambda handed, name: name in handed,
}


class Polish(Stage):
    """Declares a choice, an input and one that may be absent."""

    name = "polish"
    axes = ("reward",)
    needs = ("model",)
    may_need = ("documents",)
    produces = "model"

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        teacher: str = model_ref()


def work(**handed: Any) -> Work:
    handed = {"inputs": {"model": "given"}, "choices": {}, **handed}
    return Work(
        stage="polish@last", maker=Polish, part="", config=None, seed=0, device="cpu", out=Path(),
        checkpoints=Path(), load=lambda key: pytest.fail("nothing to load"), refers=registry().model_refs,
        **handed,
    )  # fmt: skip


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_was_not_declared_is_refused_by_name_however_it_is_asked(
    asked: Callable[[Any, str], Any],
) -> None:
    for name in ("tokens", "optimizer.model", "reward.modle", "polish.model", "polish_last.teachers"):
        with pytest.raises(PluginError, match=f"polish@last has no input '{name}': name the kind in `needs`"):
            asked(work().inputs, name)
    with pytest.raises(
        PluginError, match="polish@last has no choice of 'optimizer': name the axis in `axes`"
    ):
        asked(work().choices, "optimizer")


def test_what_was_declared_may_be_absent() -> None:
    inputs = work().inputs
    assert inputs["model"] == inputs.get("model") == "given"  # type: ignore[comparison-overlap]
    for name in ("documents", "reward.model", "polish.teacher", "polish_last.teacher"):
        assert name not in inputs
        assert inputs.get(name) is None
    assert work().choices.get("reward") is None
    assert "rotation" not in work(axes=("rotation",)).choices  # a plugin's axis that names the stage


def test_one_choice_is_not_several() -> None:
    found = work(choices={"reward": ("a", "b"), "judge": "c"})
    with pytest.raises(PluginError, match=r"reward takes several; ask `work.several\('reward'\)`"):
        found.one("reward")
    with pytest.raises(PluginError, match=r"judge takes one; ask `work.one\('judge'\)`"):
        found.several("judge")


def test_nothing_else_of_the_cell_is_within_reach() -> None:
    assert not hasattr(work(), "cell")
