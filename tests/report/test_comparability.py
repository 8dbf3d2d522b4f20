"""What may stand in one table: config drift is refused, fact drift footnoted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simulate

from harness.report import comparability, frames, records, table
from harness.report.layout import Layout

Change = Callable[[dict[str, Any]], None]


def checked(root: Path, change: Change | None = None, *, index: int = 4) -> comparability.Comparable:
    """Simulated records, one of them drifted."""
    simulate.experiment(root, items=12, seed_sd=0.1)
    if change is not None:
        path = sorted(root.glob("records/demo/*/record.json"))[index]
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
    return comparability.comparable(records.read(root, "demo"))


def test_records_that_differ_in_factors_and_seeds_alone_are_comparable(tmp_path: Path) -> None:
    found = checked(tmp_path)
    assert found.notes == []
    assert found.marks == {}


def other_batch(record: dict[str, Any]) -> None:
    record["config"]["pretrain"]["batch_size"] = 32


def other_dtype(record: dict[str, Any]) -> None:
    record["config"]["precision"] = {"method": "bf16"}


def other_budget(record: dict[str, Any]) -> None:
    record["config"]["pretrain"]["budget"]["amount"] = 3e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_batch, "pretrain.batch_size is 32, elsewhere 16"),
        (other_dtype, "precision.method is bf16, elsewhere absent"),
        (other_budget, "pretrain.budget.amount is 3000000.0, elsewhere 2000000.0"),
    ],
)
def test_config_drift_is_refused_and_the_key_is_named(tmp_path: Path, change: Change, message: str) -> None:
    found = checked(tmp_path, change)
    refused = [r for r in found.records if r.status == "refused"]
    assert len(refused) == 1
    assert refused[0].reason == f"refused: {message}"
    assert any(message in note for note in found.notes)
    results = frames.arrange(found.records)
    built = table.build(results, Layout())
    lacking = [c for c in built.all_cells() if c.missing]
    assert lacking
    assert all(message in line for c in lacking for line in c.missing)


def fact(stage: str, name: str, value: Any) -> Change:
    def change(record: dict[str, Any]) -> None:
        record["facts"][stage][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fact("pretrain", "effective_batch", 12), "measured pretrain.effective_batch is 12, elsewhere 16"),
        (fact("pretrain", "dtype", "bfloat16"), "measured pretrain.dtype is bfloat16, elsewhere float32"),
        (fact("corpus", "sha256", "beef" * 16), f"measured corpus.sha256 is {'beef' * 16}, elsewhere c0ffee"),
        (fact("evaluate", "evaluator_version", "0.4.12"), "evaluator_version is 0.4.12, elsewhere 0.4.13"),
        (fact("evaluate", "truncated_contexts", 7), "evaluate.truncated_contexts is 7, elsewhere 0"),
        (fact("pretrain", "tokens", 900_000), "measured pretrain.tokens is 900,000, elsewhere 1,048,576"),
    ],
)
def test_fact_drift_is_footnoted_on_the_cells_it_touches(
    tmp_path: Path, change: Change, message: str
) -> None:
    found = checked(tmp_path, change)
    assert all(r.status == "ok" for r in found.records), "facts never refuse"
    assert len(found.marks) == 1
    assert message in next(iter(found.marks.values()))[0]
    results = frames.arrange(found.records)
    results.marks = found.marks
    built = table.build(results, Layout())
    marked = [c for c in built.all_cells() if c.notes]
    assert {tuple(c.where.items()) for c in marked} == {tuple(built_where(found).items())}
    assert message in built.footnotes[marked[0].notes[0]]


REAL = Path(__file__).parents[2] / "reports" / "demo" / "records.json.gz"


@pytest.fixture(scope="module")
def real() -> list[records.Record]:
    """What the committed demo really measured."""
    return records.read(REAL, "demo")


def set_at(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *middle, last = path
    for part in middle:
        data = data[part]
    assert last in data, f"no real record has {'.'.join(path)}"
    data[last] = value


RECALL = ("facts", "evaluate", "lm_eval.recall")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "pretrain", "batch_size"), 16, "refused: pretrain.batch_size is 16, elsewhere 8"),
        (("config", "precision", "method"), "bf16", "refused: precision.method is bf16, elsewhere fp32"),
        (("facts", "pretrain", "batch_size"), 16, "measured pretrain.batch_size is 16, elsewhere 8"),
        (("facts", "align", "dtype"), "bfloat16", "measured align.dtype is bfloat16, elsewhere float32"),
        (("facts", "corpus", "sha256"), "beef" * 16, "measured corpus.sha256 is beefbeef"),
        (("facts", "pretrain", "tokens"), 500_000, "measured pretrain.tokens is 500,000, elsewhere 623,616"),
        ((*RECALL, "evaluator_version"), "lm-eval 0.4.9", "is lm-eval 0.4.9, elsewhere lm-eval 0.4.13"),
        ((*RECALL, "truncated_contexts"), 3, "recall.truncated_contexts is 3, elsewhere 0"),
        ((*RECALL, "num_fewshot", "recall"), 5, "recall.num_fewshot.recall is 5, elsewhere 0"),
        ((*RECALL, "task_versions", "recall"), 2.0, "recall.task_versions.recall is 2, elsewhere 1"),
    ],
)
def test_drift_of_a_real_record_is_found_where_real_records_state_it(
    real: list[records.Record], path: tuple[str, ...], value: Any, message: str
) -> None:
    place = next(i for i, r in enumerate(real) if r.levels["alignment"] == "dpo" and r.seed == 1)
    data = copy.deepcopy(dict(real[place].data))
    set_at(data, path, value)
    drifted = records.Record(data=data)
    found = comparability.comparable([*real[:place], drifted, *real[place + 1 :]])
    before = comparability.comparable(real)
    if message.startswith("refused"):
        assert [r.reason for r in found.records if r.status == "refused"] == [message]
        return
    added = {c: set(m) - set(before.marks.get(c, ())) for c, m in found.marks.items()}
    assert [cell for cell, marks in added.items() if marks] == [drifted.cell]
    assert message in " ".join(added[drifted.cell])


def built_where(found: comparability.Comparable) -> dict[str, str]:
    (cell,) = found.marks
    record = next(r for r in found.records if r.cell == cell)
    return {f: record.levels[f] for f in ("peft", "alignment", "quantizer")}


def test_counts_less_than_one_percent_apart_agree(tmp_path: Path) -> None:
    assert checked(tmp_path, fact("pretrain", "tokens", 1_048_576 - 4_000)).marks == {}


def tokenizers(tmp_path: Path, *, stray: bool) -> comparability.Comparable:
    """Two tokenizers that make different numbers of tokens; one stray record where asked."""
    factors = {"tokenizer": ["byte", "bpe"]}
    simulate.experiment(tmp_path, name="tokenizers", factors=factors, items=12, effects={})
    for path in sorted(tmp_path.glob("records/tokenizers/*/record.json")):
        record = json.loads(path.read_text())
        tokens = 1_000_000 if record["levels"]["tokenizer"] == "byte" else 300_000
        odd = stray and record["seed"] == 2 and record["levels"]["tokenizer"] == "bpe"
        record["facts"]["pretrain"]["tokens"] = 250_000 if odd else tokens
        path.write_text(json.dumps(record))
    return comparability.comparable(records.read(tmp_path, "tokenizers"))


def test_a_fact_that_the_factor_must_move_is_no_drift(tmp_path: Path) -> None:
    found = tokenizers(tmp_path, stray=False)
    assert found.notes == []
    assert found.marks == {}


def test_a_third_partys_axis_says_itself_what_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`changes` of a plugin's methods counts like the built-in knowledge."""
    from harness import registry_index

    simulate.experiment(tmp_path, name="own", factors={"pruner": ["a", "b"]}, tasks=(), effects={})
    for path in tmp_path.glob("records/own/*/record.json"):
        record = json.loads(path.read_text())
        record["facts"]["pretrain"]["dtype"] = record["levels"]["pruner"]
        path.write_text(json.dumps(record))
    found = records.read(tmp_path, "own")
    for changes, marked in (([], 3), (["dtype"], 0)):
        index = {"methods": [{"axis": "pruner", "name": "a", "changes": changes}]}
        monkeypatch.setattr(registry_index, "read", lambda index=index: index)
        assert len(comparability.comparable(found).marks) == marked


def test_a_hash_that_a_seed_draws_may_differ_between_seeds_alone(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, tasks=())
    for i, path in enumerate(sorted(tmp_path.glob("records/demo/*/record.json"))):
        record = json.loads(path.read_text())
        drawn = "" if record["levels"]["quantizer"] == "8 bit" else f"{record['seed']:064d}"
        record["facts"]["quantize"] = {"calibration_sha256": "f" * 64 if i == 0 and drawn else drawn}
        path.write_text(json.dumps(record))
    first = json.loads(sorted(tmp_path.glob("records/demo/*/record.json"))[0].read_text())
    marks = comparability.comparable(records.read(tmp_path, "demo")).marks
    assert set(marks) <= {first["cell"]}


def test_a_fact_that_moves_inside_one_level_is_drift_all_the_same(tmp_path: Path) -> None:
    found = tokenizers(tmp_path, stray=True)
    assert len(found.marks) == 1
    assert "pretrain.tokens is 250,000, elsewhere 300,000" in next(iter(found.marks.values()))[0]


def test_a_method_level_may_set_other_keys_only_by_naming_them(tmp_path: Path) -> None:
    named = {"peft": {"full": {"peft": "full"}, "lora": {"peft": "lora", "instruct.learning_rate": 0.01}}}
    simulate.experiment(tmp_path, factors=named, items=12, effects={})
    found = comparability.comparable(records.read(tmp_path, "demo"))
    assert found.notes == []


def test_an_older_configuration_of_the_same_cells_is_left_out_with_a_note(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=12)
    first = sorted(tmp_path.glob("records/demo/*/record.json"))[0]
    old = json.loads(first.read_text())
    old["config"]["model"]["dim"] = 64
    old["cell"] = "0" * 16
    simulate.write(tmp_path, old)
    found = comparability.comparable(records.read(tmp_path, "demo"))
    assert all(r.status == "ok" for r in found.records)
    assert "0" * 16 not in {r.cell for r in found.records}
    assert found.notes == ["1 record of another configuration left out: model.dim is 64, elsewhere 128."]


def test_records_of_two_code_versions_are_said(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["provenance"]["git"]["commit"] = "deadbeef" * 5
        record["provenance"]["versions"]["torch"] = "2.11.0"

    notes = checked(tmp_path, change).notes
    assert any("git.commit" in n and "deadbeefdead (records: 1)" in n for n in notes)
    assert any("versions.torch is 2.13.0 (records: 35), 2.11.0 (records: 1)" in n for n in notes)
