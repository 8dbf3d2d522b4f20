"""What the plan says of context methods beside other choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from composed import tiny

from harness.compose import Experiment, compose, publish
from harness.errors import ConfigError, IncompatibleError
from harness.plan.costs import Costs
from harness.plan.graph import Graph
from harness.plan.node import Node
from harness.plan.plan import Plan
from harness.plan.problems import problems
from harness.plan.trainings import memory_bound
from harness.registry.known import registry
from harness.store import Store


def found(*overrides: str) -> list[str]:
    publish()
    return [str(problem) for problem in problems(compose(overrides))]


NAMES = [name for name in registry().methods("context") if name != "none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_goes_with_rope(name: str) -> None:
    assert found(f"context={name}", "position=rope") == []


def test_rotary_methods_are_refused_without_rotary_positions() -> None:
    assert "requires 'rotary'" in found("context=yarn", "position=alibi")[0]
    assert found("context=direct_finetune", "position=alibi") == []


@pytest.mark.parametrize("position", ["rope_dynamic", "rope_longrope"])
def test_positions_that_follow_the_length_would_undo_a_rotary_method(position: str) -> None:
    """The plan says so, and a model that was not planned refuses the method too."""
    assert any(
        "follow the length by themselves" in problem
        for problem in found("context=yarn", f"position={position}")
    )
    assert found("context=direct_finetune", f"position={position}") == []
    method = registry().get("context", "yarn")
    with pytest.raises(IncompatibleError, match="follow the length by themselves"):
        method(method.Config()).apply(tiny(position=position))  # type: ignore[attr-defined]


LATENT = ("attention=multi_head_latent", "attention.rope_dim=8", "attention.latent_dim=16")


def test_methods_that_choose_scores_need_an_attention_that_has_them() -> None:
    assert any("chooses scores" in problem for problem in found("context=rerope", "attention=linear"))
    assert any("makes its own" in problem for problem in found("context=rerope", *LATENT))
    assert found("context=yarn", *LATENT) == []
    assert not any("chooses scores" in problem for problem in found("context=yarn", "attention=linear"))


def planned(store: Path, *overrides: str) -> tuple[Node, Plan]:
    """The stage extend of a plan, and the plan."""
    publish()
    stages = "stages=[corpus,tokenizer,tokens,pretrain,extend,evaluate]"
    graph = Graph(Store(store))
    graph.add(compose([stages, *overrides]))
    made = Plan(name="x", arguments=(), experiment=Experiment(), factors=[], cells=[], graph=graph)
    return next(node for node in graph.nodes.values() if node.stage == "extend"), made


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_at_the_defaults_knows_what_extending_costs(name: str, tmp_path: Path) -> None:
    node, made = planned(tmp_path, f"context={name}")
    method = registry().get("context", name)
    cost = Costs(made).of(node)
    if method.trains:
        assert cost.flops is not None
        assert cost.flops > 0
    else:
        assert cost.flops is None, "it does not train"
    assert memory_bound(node) > 0


def test_null_stands_for_the_extended_length_and_costs_as_much(tmp_path: Path) -> None:
    shape = ("context=yarn", "context.factor=4", "model.max_length=64", "extend.budget.unit=steps")
    steps = (*shape, "extend.budget.amount=3", "pretrain.sequence_length=64")
    (unsaid, one), (said, other) = (
        planned(tmp_path, *steps, *more) for more in ((), ("extend.sequence_length=256",))
    )
    assert unsaid.config.sequence_length is None
    assert Costs(one).of(unsaid).flops == Costs(other).of(said).flops
    assert memory_bound(unsaid) == memory_bound(said)


def test_lengths_that_mean_nothing_are_refused_by_the_plan() -> None:
    with pytest.raises(ConfigError, match="sequence_length=0 must be positive"):
        compose(["context=yarn", "extend.sequence_length=0"])
    stages = "stages=[corpus,tokenizer,tokens,pretrain,extend,evaluate]"
    problems = found(stages, "context=yarn", "model.max_length=128", "extend.sequence_length=300")
    said = "extend.sequence_length: 300 exceeds the extended length of 256 tokens"
    assert any(said in problem for problem in problems)
    (problem,) = found(*BIG, "context=yarn", "extend.sequence_length=64")
    assert "64 is within the 64 tokens that the model was trained on" in problem
    assert found(*BIG, "context=yarn", "extend.sequence_length=65") == []


def test_a_pretrained_model_without_rotary_positions_is_refused_by_the_plan(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    stages = "stages=[corpus,extend,evaluate]"
    problems = found("model=pretrained", f"model.path={tmp_path}", stages, "context=yarn")
    assert any("context=yarn changes rotary positions, and a GPT2LMHeadModel has none" in p for p in problems)


BIG = (
    "model.max_length=64",
    "pretrain.sequence_length=64",
    "stages=[corpus,tokenizer,tokens,pretrain,extend]",
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("context=yarn", "context.factor=1"), "context=yarn changes nothing at 1; raise it above 1"),
        (("context=dynamic_ntk", "context.factor=1"), "context=dynamic_ntk changes nothing at 1"),
        (("context=llama3", "context.factor=1"), "context=llama3 changes nothing at 1"),
        (
            ("context=longrope", "context.long=[1,2,3]"),
            "has 3 factors, but the model has 16 rotations a head",
        ),
        (("context=ntk_aware", "model.head_dim=2"), "heads have one rotation"),
        (("context=lambda_window", "context.limit=65"), "distances of up to 65 tokens, beyond the 64 that"),
        (("context=streaming", "context.window=61"), "distances of up to 65 tokens, beyond the 64 that"),
        (("context=rerope", "context.window=100"), "distances of up to 100 tokens, beyond the 64 that"),
        (("context=leaky_rerope", "context.window=100"), "distances of up to 100 tokens, beyond the 64 that"),
    ],
)
def test_options_that_change_nothing_or_go_beyond_what_was_trained_are_refused_by_the_plan(
    options: tuple[str, ...], message: str
) -> None:
    problems = found(*BIG, *options)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(
    "options",
    [
        ("context=base_modification", "context.factor=1"),
        ("context=lambda_window", "context.limit=64"),
        ("context=streaming", "context.window=60"),
        ("context=streaming",),
        ("context=lambda_window",),
        ("context=rerope",),
    ],
)
def test_windows_follow_the_trained_length_unless_they_are_stated(options: tuple[str, ...]) -> None:
    assert found(*BIG, *options) == []


def test_stages_of_length_begin_at_the_trained_one() -> None:
    with pytest.raises(ConfigError, match="must increase from 1"):
        compose(["context=direct_finetune", "context.stages=[0.5]", "context.factor=4"])
