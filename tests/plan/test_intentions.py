"""What an experiment compares and claims is checked with its plan, before anything is spent."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.compose import Experiment
from harness.errors import ConfigError
from harness.plan.factors import factors, request
from harness.plan.intentions import check_claims, refuse_unknown_factors, settled_baseline

VARIES = {"attention": ["full", "linear"], "optimizer": ["adamw", "lion"]}


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ({"optimiser": "adamw"}, "No factor .in baseline. is called 'optimiser'. Did you mean 'optimizer'"),
        (
            {"optimizer": "adamx"},
            "No level of factor optimizer .in baseline. is called 'adamx'. Did you mean",
        ),
    ],
)
def test_a_misspelt_baseline_is_refused(baseline: dict[str, str], message: str) -> None:
    experiment = Experiment(factors=VARIES, baseline=baseline)
    with pytest.raises(ConfigError, match=message):
        settled_baseline(experiment, factors(experiment, request([])), declared=experiment)


def test_a_baseline_that_the_command_line_left_out_is_told() -> None:
    experiment = Experiment(factors=VARIES, baseline={"optimizer": "adamw", "attention": "full"})
    found = factors(experiment, request(["optimizer=lion,sgd", "attention=flash"]))
    settled, notes = settled_baseline(experiment, found, declared=experiment)
    assert settled.baseline == {"attention": "flash"}
    assert notes == [
        "baseline optimizer=adamw is not among the levels asked for (lion, sgd): nothing is tested "
        "against it; add it, or state 'baseline={optimizer: lion}'"
    ]


def test_a_baseline_among_levels_that_a_typed_factor_replaced_is_told() -> None:
    declared = Experiment(factors=VARIES, baseline={"optimizer": "adamw"})
    typed = replace(declared, factors=VARIES | {"optimizer": ["lion", "sgd"]})  # factors.optimizer=[lion,sgd]
    _, notes = settled_baseline(typed, factors(typed, request([])), declared=declared)
    assert "baseline optimizer=adamw is not among the levels asked for (lion, sgd)" in notes[0]


def test_a_key_that_is_no_factor_is_answered_with_what_the_experiment_varies() -> None:
    declared = Experiment(name="mine", factors={"way": {"a, b": {"seed": 1}, "two c": {"seed": 2}}})
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_factors(declared, request(["method=a"]))
    assert str(caught.value) == (
        "No factor and no config key is called 'method'. experiment=mine varies way ('a, b', two c). Choose "
        "levels by name, e.g. \"way='a, b',two c\""
    )
    for known in (
        "way=two c",
        "scale=smoke",
        "seed=1",
        "optimizer@align.optimizer=lion",
        "+new=1",
        "attention=full",
    ):
        refuse_unknown_factors(declared, request([known]))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("bits_per_byte[attention=full]", "expected one of < <= = >= > at its end"),
        ("bits_per_byte[atention=full] < bits_per_byte", "No factor .in claim .* is called 'atention'"),
        ("bits_per_byte[attention=fll] < bits_per_byte", "No level of factor attention .* is called 'fll'"),
        ("bits_per_bite < bits_per_byte", "No metric .in claim .* is called 'bits_per_bite'"),
    ],
)
def test_a_claim_that_can_never_be_checked_is_refused(claim: str, message: str) -> None:
    experiment = Experiment(factors=VARIES, claims=[{"says": claim}])
    with pytest.raises(ConfigError, match=message):
        check_claims(experiment, factors(experiment, request([])), [], declared=experiment)


def test_claims_about_facts_and_about_what_is_not_measured_here_stand() -> None:
    claims = [
        "pretrain.seconds[attention=full] < pretrain.seconds[attention=linear]",
        "recall.acc < recall.acc",
    ]
    experiment = Experiment(factors=VARIES, claims=claims)
    notes = check_claims(experiment, factors(experiment, request([])), [], declared=experiment)
    assert notes == [
        "claim 'recall.acc < recall.acc' stays undecided: no chosen evaluator measures recall.acc"
    ]


def test_the_metrics_an_evaluator_states_are_those_of_its_tasks() -> None:
    from harness.evaluation.lm_tasks import own_metrics

    assert own_metrics("mqar") == ["acc", "exact_match"]
    assert own_metrics("last_word") == ["acc", "perplexity", "nats_per_word"]
    assert own_metrics("gsm8k") is None
    assert not Path("gsm8k.yaml").exists()
