"""The grammar of claims and their verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import simulate
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import builds, dictionaries, none, text

from harness.errors import ConfigError, UnknownNameError
from harness.plan.claims import Claim, Side, Term
from harness.report import arrange, claims, frames, records


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bits_per_byte[kv_heads=4] <= bits_per_byte[kv_heads=1]", None),
        ("recall.acc[quantizer=16 bit,peft=lora]<recall.acc [ quantizer = 4 bit ]+.02",
         "recall.acc[quantizer=16 bit, peft=lora] < recall.acc[quantizer=4 bit] + 0.02"),
        ("acc[a=1e-3] = acc[a=x-y] +- 1e-2", "acc[a=1e-3] = acc[a=x-y] +- 0.01"),
        ('"acc, norm"["data set"="FLAN, v2"] > acc - 3', '"acc, norm"[data set="FLAN, v2"] > acc - 3'),
        ("""acc[filter='["language", "pii"]'] > acc[filter="[]"]""", None),
        (r"""acc[x="it's, \\ \"a\""] = 'a "b"'""", r"""acc[x='it\'s, \\ "a"'] = 'a "b"'"""),
        ("loss >= loss", None),
        ("(acc[a=1] - acc[a=2])[b=x] < (acc[a=1] - acc[a=2])[b=y] + 0.1",
         "(acc[a=1, b=x] - acc[a=2, b=x]) < (acc[a=1, b=y] - acc[a=2, b=y]) + 0.1"),
        ("(top-1 acc[a=1] - acc[a=2]) > acc", "(top-1 acc[a=1] - acc[a=2]) > acc"),
    ],
)  # fmt: skip
def test_a_claim_is_read_as_its_grammar_says(text: str, shown: str | None) -> None:
    assert str(claims.parse(text)) == (shown or text)


NAMES = text(st.sampled_from("ab1.- =<>[](),+'\"\\\n"), max_size=7)
TERMS = builds(Term, metric=NAMES, where=dictionaries(NAMES, NAMES, max_size=2))
SIDES = builds(Side, first=TERMS, minus=none() | TERMS)
MARGINS = dictionaries(st.sampled_from(["offset"]), st.floats(-1e9, 1e9), max_size=1) | builds(
    lambda tolerance: {"relation": "=", "tolerance": tolerance}, st.floats(0, 1e9)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIDES, SIDES, st.sampled_from(["<", "<=", "=", ">=", ">"]), MARGINS)
def test_a_claim_that_is_written_is_read_as_it_was(
    left: Side, right: Side, relation: str, margin: dict[str, Any]
) -> None:
    """Names of any characters, numbers of any digits."""
    claim = Claim(**{"left": left, "right": right, "relation": relation, **margin})
    assert claims.parse(str(claim)) == claim


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acc",
        "acc[a=1] <",
        "acc < ",
        "acc[a] < acc",
        "acc[a=1 < acc",
        "acc < acc + many",
        "acc < acc + 1 + 2",
        "acc < acc +- 1",
        "acc[a<1] < acc",
        "acc << acc",
        "(acc - acc < acc",
        "(acc) < acc",
        "(acc[a=1] - acc[a=2])[a=3] < acc",
        "__import__('os').system('true')",
    ],
)
def test_anything_else_is_an_error_that_quotes_the_claim(text: str) -> None:
    with pytest.raises(ConfigError, match="Claim '"):
        claims.parse(text)


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> frames.Results:
    """Five seeds, a large effect of 4 bit and of dpo, none of 8 bit."""
    root = simulate.experiment(
        tmp_path_factory.mktemp("strong"),
        seeds=range(5),
        items=400,
        tasks=("recall",),
        effects={"alignment.dpo": 1.0, "quantizer.4 bit": -1.0},
        seed_sd=0.02,
    )
    return arrange.arrange(records.read(root, "demo"))


@pytest.mark.parametrize(
    ("says", "verdict"),
    [
        ("recall.acc[alignment=dpo] > recall.acc[alignment=none]", "confirmed"),
        ("recall.acc[alignment=none] < recall.acc[alignment=dpo]", "confirmed"),
        ("recall.acc[alignment=dpo] > recall.acc[alignment=none] + 0.5", "refuted"),
        ("recall.acc[quantizer=4 bit] = recall.acc[quantizer=16 bit]", "refuted"),
        ("recall.acc[quantizer=8 bit] = recall.acc[quantizer=16 bit] +- 0.1", "confirmed"),
        ("recall.acc[quantizer=8 bit] = recall.acc[quantizer=16 bit]", "undecided"),
        ("recall.acc[quantizer=8 bit] < recall.acc[quantizer=16 bit]", "undecided"),
        ("bits_per_byte[alignment=dpo] < bits_per_byte[alignment=none]", "confirmed"),
        ("memory[quantizer=4 bit] < memory[quantizer=16 bit]", "confirmed"),
        ("memory[quantizer=4 bit] = memory[quantizer=16 bit]", "refuted"),
    ],
)
def test_verdicts_follow_the_interval_over_seeds(strong: frames.Results, says: str, verdict: str) -> None:
    found = claims.check(strong, {"says": says, "source": "arXiv:0000.00000"})
    assert found.verdict == verdict, found
    assert found.source == "arXiv:0000.00000"
    assert found.difference is not None


def test_an_answer_is_a_sentence(strong: frames.Results) -> None:
    says = "recall.acc[alignment=dpo] > recall.acc[alignment=none]"
    found = claims.check(strong, {"says": says, "finding": "DPO helps.", "answers": True})
    assert found.answers
    assert claims.sentence(found).startswith(
        "DPO helps. So it is here, at learning rates set by hand: the difference is +19."
    )


def test_two_seeds_decide_nothing_about_methods_but_say_what_the_checkpoints_do(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=(0, 1), items=300, tasks=("recall",), effects={"alignment.dpo": 2.0})
    results = arrange.arrange(records.read(tmp_path, "demo"))
    found = claims.check(results, "recall.acc[alignment=dpo] > recall.acc[alignment=none]")
    assert found.verdict == "undecided"
    assert "3 are needed" in found.reason
    assert "these checkpoints say confirmed" in found.reason


def test_unknown_names_are_errors_for_one_claim_and_undecided_in_a_list(strong: frames.Results) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'quantizer'"):
        claims.check(strong, "recall.acc[quantiser=4 bit] < recall.acc")
    (found,) = claims.check_all(strong, ["recall.acc[quantizer=2 bit] < recall.acc"])
    assert found.verdict == "undecided"
    assert "No level of factor 'quantizer' is called '2 bit'" in found.reason


def test_claims_over_tasks_of_other_sizes_are_one_family(tmp_path: Path) -> None:
    """Two seeds: the documents decide, and each task has its own."""
    simulate.experiment(tmp_path, seeds=(0, 1), items=300, tasks=("recall",), effects={"alignment.dpo": 2.0})
    for place in sorted(tmp_path.glob("records/demo/*/record.json")):
        data = json.loads(place.read_text())
        half = simulate.pd.DataFrame({"doc_hash": [f"d{i}" for i in range(40)], "acc": [0.0, 1.0] * 20})
        data["metrics"].append(simulate.metric("lm_eval", "copy", "acc", 0.5, n=40))
        simulate.write(tmp_path, data, {"lm_eval.copy": half})
    results = arrange.arrange(records.read(tmp_path, "demo"))
    said = [f"{task}.acc[alignment=dpo] > {task}.acc[alignment=none]" for task in ("recall", "copy")]
    recall, copy = claims.check_all(results, said)
    assert "these checkpoints say confirmed" in recall.reason
    assert "these checkpoints say confirmed" not in copy.reason


def test_an_optional_claim_of_a_layout_is_left_out_where_records_have_no_such_thing(
    strong: frames.Results,
) -> None:
    fits = {"says": "recall.acc[quantizer=4 bit] < recall.acc[quantizer=16 bit]"}
    others = [
        {"says": "recal.acc[quantizer=4 bit] < recall.acc[quantizer=16 bit]"},
        {"says": "recall.acc[quantizer=2 bit] < recall.acc[quantizer=16 bit]"},
        {"says": "recall.acc[size=large] < recall.acc[quantizer=16 bit]"},
    ]
    decisions = claims.Decisions(strong)
    assert claims.fitting(decisions, [{**claim, "optional": True} for claim in (fits, *others)]) == [fits]
    assert claims.fitting(decisions, others) == others


def test_a_failed_cell_makes_the_claim_undecided_with_its_reason(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, tasks=())
    for i, path in enumerate(sorted(tmp_path.glob("records/demo/*/record.json"))):
        if '"4 bit", "alignment"' in path.read_text() or '"quantizer": "4 bit"' in path.read_text():
            outcome = {"status": "oom", "reason": "needs 9 GiB", "stage": "quantize", "step": None}
            simulate.edit(tmp_path, "demo", i, outcome=outcome, metrics=[])
    results = arrange.arrange(records.read(tmp_path, "demo"))
    found = claims.check(results, "bits_per_byte[quantizer=4 bit] < bits_per_byte[quantizer=16 bit]")
    assert found.verdict == "undecided"
    assert "oom in quantize: needs 9 GiB" in found.reason


def one_run_each(root: Path, path: str) -> frames.Results:
    """Results whose seeds share every run, of a checkpoint at `path`."""
    simulate.experiment(root, items=300, tasks=("recall",), effects={"alignment.dpo": 2.0})
    for i, file in enumerate(sorted(root.glob("records/demo/*/record.json"))):
        record = json.loads(file.read_text())
        stages = [{"stage": "quantize", "key": json.dumps(record["levels"], sort_keys=True)}]
        simulate.edit(root, "demo", i, stages=stages, config={**record["config"], "model": {"path": path}})
    return arrange.arrange(records.read(root, "demo"))


def test_what_draws_nothing_is_decided_for_a_checkpoint_from_outside_over_documents(tmp_path: Path) -> None:
    says = "recall.acc[alignment=dpo] > recall.acc[alignment=none]"
    given = claims.check(one_run_each(tmp_path / "given", "some.gguf"), says)
    assert given.verdict == "confirmed"
    assert "over 300 documents" in given.reason
    assert given.reason.endswith("no seed moves it; given the checkpoint some.gguf")
    built = claims.check(one_run_each(tmp_path / "built", ""), says)
    assert built.verdict == "undecided", "another model of the same making might say otherwise"
    assert "seeds are no replicates" in built.reason
