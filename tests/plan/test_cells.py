"""Cells: what a question and a command line cross, and which stage the seed varies."""

from dataclasses import replace
from typing import Any

import pytest

from harness.compose import Experiment
from harness.errors import ConfigError, UnknownNameError
from harness.plan.cells import CellPlan, cells, first_stage
from harness.plan.factors import chosen, factors, request
from harness.plan.grammar import label_text, parse, split_overrides, value_text
from harness.plan.order import coverage_first
from harness.plan.plan import PlannedCell

STAGES = (
    "corpus",
    "tokenizer",
    "tokens",
    "pretrain",
    "instruct",
    "align",
    "quantize",
    "generate",
    "evaluate",
)
BITS = {
    "16 bit": {"quantizer": "none"},
    "8 bit": {"quantizer": "rtn", "quantizer.bits": 8},
    "4 bit": {"quantizer": "rtn", "quantizer.bits": 4},
}


def planned(experiment: Experiment, *arguments: str, seeds: tuple[int, ...] = (0,)) -> list[CellPlan]:
    asked = request(arguments)
    return cells(experiment, factors(experiment, asked), seeds=seeds, stages=STAGES)


def levels(found: list[CellPlan]) -> list[dict[str, str]]:
    return [cell.levels for cell in found]


def test_factors_are_crossed_with_each_other_and_the_seeds() -> None:
    experiment = Experiment(factors={"peft": ["full", "lora"], "bits": BITS})
    found = planned(experiment, seeds=(0, 1))
    assert len(found) == 12
    assert found[2].levels == {"peft": "full", "bits": "8 bit"}
    assert found[2].overrides == (
        "peft=full", "quantizer=rtn", "quantizer.bits=8", "seed=0", "seed_from=instruct"
    )  # fmt: skip


def test_a_factor_of_one_key_takes_a_name_of_its_own() -> None:
    experiment = Experiment(factors={"kv_heads": {"attention.num_kv_heads": [8, 4]}})
    assert levels(planned(experiment)) == [{"kv_heads": "8"}, {"kv_heads": "4"}]


def test_zipped_factors_move_together() -> None:
    experiment = Experiment(factors={"a": ["1", "2"], "b": ["x", "y"], "c": ["p", "q"]}, zip=[["a", "b"]])
    assert levels(planned(experiment)) == [
        {"a": "1", "b": "x", "c": "p"},
        {"a": "1", "b": "x", "c": "q"},
        {"a": "2", "b": "y", "c": "p"},
        {"a": "2", "b": "y", "c": "q"},
    ]
    uneven = Experiment(factors={"a": ["1", "2"], "b": ["x"]}, zip=["a", "b"])
    with pytest.raises(ConfigError, match=r"equally many levels, not \{'a': 2, 'b': 1\}"):
        planned(uneven)


def test_explicit_cells_and_exclusions_choose_among_levels() -> None:
    experiment = Experiment(
        factors={"peft": ["full", "lora"], "bits": BITS},
        cells=[{"peft": "lora", "bits": "4 bit"}, {"peft": "full", "pretrain.learning_rate": 0.1}],
    )
    assert levels(planned(experiment)) == [
        {"peft": "lora", "bits": "4 bit"},
        {"peft": "full", "pretrain.learning_rate": "0.1"},
    ]
    crossed = replace(experiment, factors={**experiment.factors, "optimizer": ["adamw", "lion"]})
    assert levels(planned(crossed)) == [
        {**listed, "optimizer": name} for listed in levels(planned(experiment)) for name in ("adamw", "lion")
    ]
    experiment = Experiment(
        factors={"peft": ["full", "lora"], "bits": BITS},
        exclude=[{"peft": "full", "bits": ["4 bit", "8 bit"]}],
    )
    assert len(planned(experiment)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": [{"pefd": "full"}]}, "No factor .in exclude. is called 'pefd'. Did you mean 'peft'"),
        ({"exclude": [{"peft": ["ful"]}]}, "No level of factor 'peft' .in exclude. is called 'ful'"),
        ({"zip": ["peft", "x"]}, "No factor .in zip. is called 'x'"),
        ({"cells": [{"peft": "lorra"}]}, "No level of factor peft is called 'lorra'. Did you mean 'lora'"),
        ({"factors": {"peft": []}}, r"factors\.peft=\[\]: give"),
        ({"factors": {"peft": 3}}, r"factors\.peft is an integer \(3\), not a list or a mapping; write e\.g"),
        ({"reseed": "some"}, "No way to reseed is called 'some'"),
    ],
)
def test_what_names_nothing_is_explained(changes: dict[str, object], message: str) -> None:
    stated: dict[str, Any] = {"factors": {"peft": ["full", "lora"]}, **changes}
    with pytest.raises(ConfigError, match=message):
        planned(Experiment(**stated))


def test_several_values_on_the_command_line_are_a_further_factor() -> None:
    experiment = Experiment(factors={"peft": ["full", "lora"]})
    found = planned(experiment, "optimizer=adamw,lion", "seed=0,1")
    assert levels(found)[:2] == [
        {"peft": "full", "optimizer": "adamw"}, {"peft": "full", "optimizer": "lion"}
    ]  # fmt: skip
    assert len(found) == 4


def test_an_override_of_a_factors_key_replaces_its_levels_and_its_name_chooses_them() -> None:
    experiment = Experiment(factors={"bits": BITS, "peft": ["full", "lora"]})
    assert levels(planned(experiment, "peft=lora")) == [{"bits": b, "peft": "lora"} for b in BITS]
    assert levels(planned(experiment, "quantizer=gptq", "peft=lora")) == [{"bits": "gptq", "peft": "lora"}]
    asked = request(["bits='4 bit','8 bit'", "peft=lora"])
    assert levels(planned(experiment, "bits='4 bit','8 bit'", "peft=lora")) == [
        {"bits": "4 bit", "peft": "lora"}, {"bits": "8 bit", "peft": "lora"}
    ]  # fmt: skip
    assert [item.key for item in chosen(experiment, request(["bits='4 bit'"]))] == ["bits"]
    texts = {text for item in chosen(experiment, asked) for text in item.overrides()}
    assert texts == {"bits='4 bit'", "bits='8 bit'", "peft=lora"}


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("bits=4 bit,8 bit", ["4 bit", "8 bit"]),  # a shell took the quotes away
        ("bits=4 bit", ["4 bit"]),
        ("order=tune, quantize", ["tune, quantize"]),
        ("order=quantize, tune,tune", ["quantize, tune", "tune"]),
        ("order=quantize, tune, 'tune, quantize'", ["quantize, tune", "tune, quantize"]),
        ("peft=lora,full", ["lora", "full"]),
    ],
)
def test_levels_are_chosen_by_their_labels_whatever_a_shell_left_of_quotes(
    typed: str, labels: list[str]
) -> None:
    order = {
        "tune, quantize": {"stages": ["instruct", "quantize"]},
        "quantize, tune": {"stages": ["quantize", "instruct"]},
        "tune": {"stages": ["instruct"]},
    }
    experiment = Experiment(factors={"bits": BITS, "order": order, "peft": ["full", "lora"]})
    name = typed.partition("=")[0]
    (factor,) = (f for f in factors(experiment, request([typed])) if f.name == name)
    assert [level.label for level in factor.levels] == labels
    stated = {f.name: f for f in factors(experiment, request([]))}[name]
    assert factor.levels == tuple(stated.level(label) for label in labels)


def test_a_named_level_keeps_what_it_sets_beside_values_that_are_no_levels() -> None:
    experiment = Experiment(
        factors={"peft": {"lora": {"peft": "lora", "peft.rank": 16}, "full": {"peft": "full"}}}
    )
    (factor,) = factors(experiment, request(["peft=lora,vera"]))
    assert [(level.label, level.overrides) for level in factor.levels] == [
        ("lora", ("peft=lora", "peft.rank=16")),
        ("vera", ("peft=vera",)),
    ]


def test_a_misspelt_level_is_named_wherever_it_stands_in_the_list() -> None:
    experiment = Experiment(factors={"bits": BITS})
    with pytest.raises(ConfigError, match=r"No level of factor bits is called '5 bit'.*Known: 16 bit, 4 bit"):
        factors(experiment, request(["bits=4 bit,5 bit"]))


def test_excluded_levels_may_have_been_replaced() -> None:
    experiment = Experiment(
        factors={"peft": ["full", "lora"], "alignment": {"alignment": ["none", "dpo"]}},
        exclude=[{"peft": "full", "alignment": "dpo"}],
    )
    assert len(planned(experiment, "alignment=ppo,none")) == 4


def test_an_experiment_cannot_be_swept() -> None:
    with pytest.raises(ConfigError, match="one sweep answers one question"):
        request(["experiment=a,b"])


@pytest.mark.parametrize(
    ("keys", "stage"),
    [
        ({"quantizer": ["rtn"]}, "quantize"),
        ({"peft": ["lora"]}, "instruct"),
        ({"optimizer": ["lion"]}, "pretrain"),
        ({"optimizer@align.optimizer": ["lion"]}, "align"),
        ({"align.learning_rate": [1]}, "align"),
        ({"tokenizer.vocab_size": [300]}, "tokenizer"),
        ({"model.dim": [64]}, "pretrain"),
        ({"decoding": ["greedy"]}, "generate"),
        ({"tracker": ["[jsonl]"]}, None),
        ({"quantizer": ["rtn"], "attention": ["full"]}, "pretrain"),
    ],
)
def test_seeds_vary_the_first_stage_that_a_factor_touches(keys: dict[str, list[object]], stage: str) -> None:
    experiment = Experiment(factors=keys)
    found = factors(experiment, request([]))
    assert first_stage(experiment, found, STAGES) == stage
    everything = Experiment(factors=keys, reseed="all")
    assert first_stage(everything, found, STAGES) is None
    named = Experiment(factors=keys, reseed="pretrain")
    assert first_stage(named, found, STAGES) == "pretrain"


def test_orders_of_stages_part_where_their_lists_differ() -> None:
    chain = ["corpus", "pretrain", "instruct", "quantize", "evaluate"]
    orders: dict[str, dict[str, object]] = {
        "tune first": {"stages": chain},
        "quantize first": {"stages": ["corpus", "pretrain", "quantize", "instruct", "evaluate"]},
    }
    experiment = Experiment(factors={"order": orders})
    assert first_stage(experiment, factors(experiment, request([])), chain) == "instruct"
    orders = {"whole": {}, "untuned": {"stages": ["corpus", "pretrain", "evaluate"]}}
    orders["bare"] = {"stages": ["corpus", "pretrain"]}
    experiment = Experiment(factors={"order": orders})
    found = factors(experiment, request([]))
    assert first_stage(experiment, found, chain) == "instruct"
    made = cells(experiment, found, seeds=[0], stages=chain)
    own = [cell.overrides[-1].removeprefix("seed_from=") for cell in made]
    assert own == ["instruct", "evaluate", "pretrain"], "each the first that it has"


@pytest.mark.parametrize(
    "value",
    ["plain", "with space", "it's", "a,b", "null", "1.5", "true", 1.5, 3, True, None, [1, "a b"], "x=y", ""],
)
def test_values_survive_the_override_grammar(value: object) -> None:
    (assignment,) = parse([f"key={value_text(value)}"])
    assert assignment.value() == value


def test_cell_references_are_split_outside_brackets() -> None:
    assert split_overrides("a=b, c=[1,2],d='x,y'") == ["a=b", "c=[1,2]", "d='x,y'"]
    assert label_text(["a", "b"]) == "a+b"
    with pytest.raises(ConfigError, match="is no override"):
        parse(["a b c"])


def test_every_prefix_of_the_order_is_balanced() -> None:
    found = [
        PlannedCell(cell=None, levels={"a": str(a), "b": str(b)}, seed=s, keys=())  # type: ignore[arg-type]
        for a in range(3) for b in range(4) for s in range(2)
    ]  # fmt: skip
    ordered = coverage_first(found)
    assert len(ordered) == 24
    assert all(cell.seed == 0 for cell in ordered[:12])
    for size in range(1, 13):
        counts = [sum(cell.levels["a"] == str(a) for cell in ordered[:size]) for a in range(3)]
        assert max(counts) - min(counts) <= 1
    with pytest.raises(UnknownNameError):
        planned(Experiment(factors={"a": ["1"]}, exclude=[{"z": 1}]))


def test_a_level_without_settings_is_left_out() -> None:
    kinds = {"rope": {"context": "none"}, "alibi": None, "ntk": {"context": "ntk_aware"}}
    (found,) = factors(Experiment(factors={"method": kinds}), request([]))
    assert [level.label for level in found.levels] == ["rope", "ntk"]
