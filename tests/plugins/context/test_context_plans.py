"""What the plan says of context methods beside other choices."""

from __future__ import annotations

import pytest

from harness.compose import compose, publish
from harness.plan.problems import problems
from harness.registry import registry


def found(*overrides: str) -> list[str]:
    publish()
    return [str(problem) for problem in problems(compose(overrides))]


@pytest.mark.parametrize("name", [name for name in registry().methods("context") if name != "none"])
def test_every_method_goes_with_rope(name: str) -> None:
    assert found(f"context={name}", "position=rope") == []


def test_rotary_methods_are_refused_without_rotary_positions() -> None:
    assert "requires 'rotary'" in found("context=yarn", "position=alibi")[0]
    assert found("context=direct_finetune", "position=alibi") == []


def test_methods_that_choose_scores_need_an_attention_that_has_them() -> None:
    assert any("chooses scores" in problem for problem in found("context=rerope", "attention=linear"))
    assert not any("chooses scores" in problem for problem in found("context=yarn", "attention=linear"))
