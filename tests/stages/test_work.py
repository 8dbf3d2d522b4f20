"""What a stage is handed, and what it may not reach past it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import PluginError
from harness.stage import Work


def work(**handed: Any) -> Work:
    handed = {"inputs": {"model": "given"}, "choices": {}, **handed}
    return Work(
        stage="polish", part="", config=None, seed=0, device="cpu", out=Path(), checkpoints=Path(),
        load=lambda key: pytest.fail("nothing to load"), **handed,
    )  # fmt: skip


def test_an_input_that_was_not_declared_is_refused_by_name() -> None:
    assert work().inputs["model"] == "given"  # type: ignore[comparison-overlap]
    assert work().inputs.get("tokens") is None
    with pytest.raises(PluginError, match="stage polish has no input 'tokens': name the kind in `needs`"):
        work().inputs["tokens"]


def test_a_choice_that_is_not_in_the_key_is_refused_by_name() -> None:
    with pytest.raises(
        PluginError, match="stage polish has no choice of 'optimizer': name the axis in `axes`"
    ):
        work().one("optimizer")


def test_nothing_else_of_the_cell_is_within_reach() -> None:
    assert not hasattr(work(), "cell")
