"""What may stand in one table: config drift is refused, fact drift footnoted."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import simulate
import turns

from harness.report import arrange, compact, comparability, drift, records, reruns, runs, tabulate
from harness.report.layout import Layout
from harness.report.record import Record, flatten

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
    results = arrange.arrange(found.records)
    built = tabulate.build(results, Layout())
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
        (fact("pretrain", "effective_batch", 12), "measured effective batch of pretrain is 12, elsewhere 16"),
        (fact("pretrain", "dtype", "bfloat16"), "measured dtype of pretrain is bfloat16, elsewhere float32"),
        (fact("corpus", "sha256", "beef" * 16), "content of corpus differs from the other rows'"),
        (
            fact("evaluate", "evaluator_version", "0.4.12"),
            "measured evaluator version of evaluate is 0.4.12, elsewhere 0.4.13",
        ),
        (
            fact("evaluate", "truncated_contexts", 7),
            "measured truncated contexts of evaluate is 7, elsewhere 0",
        ),
        (fact("pretrain", "tokens", 900_000), "measured tokens of pretrain is 900,000, elsewhere 1,048,576"),
    ],
)
def test_fact_drift_is_footnoted_on_the_cells_it_touches(
    tmp_path: Path, change: Change, message: str
) -> None:
    found = checked(tmp_path, change)
    assert all(r.status == "ok" for r in found.records), "facts never refuse"
    assert len(found.marks) == 1
    assert message in next(iter(found.marks.values()))[0]
    results = arrange.arrange(found.records)
    results.marks = found.marks
    built = tabulate.build(results, Layout())
    marked = [c for c in built.all_cells() if c.notes]
    assert {tuple(c.where.items()) for c in marked} == {tuple(built_where(found).items())}
    assert message in built.footnotes[marked[0].notes[0]]


REAL = Path(__file__).parents[2] / "reports" / "demo" / "records.json.gz"


@pytest.fixture(scope="module")
def real() -> list[Record]:
    """What the committed demo really measured."""
    return records.read(REAL, "demo")


def set_at(data: dict[str, Any], path: tuple[str, ...], value: Any) -> Any:
    """Plant a value; returns what stood there."""
    *middle, last = path
    for part in middle:
        data = data[part]
    assert last in data, f"no real record has {'.'.join(path)}"
    before = data[last]
    data[last] = value
    return before


RECALL = ("facts", "evaluate", "lm_eval.recall")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "pretrain", "batch_size"), 16, "refused: pretrain.batch_size is 16, elsewhere 8"),
        (("config", "precision", "method"), "bf16", "refused: precision.method is bf16, elsewhere fp32"),
        (("facts", "pretrain", "batch_size"), 16, "measured batch size of pretrain is 16, elsewhere 8"),
        (("facts", "align", "dtype"), "bfloat16", "measured dtype of align is bfloat16, elsewhere float32"),
        (("facts", "corpus", "sha256"), "beef" * 16, "content of corpus differs from the other rows'"),
        (
            ("facts", "pretrain", "tokens"),
            500_000,
            "measured tokens of pretrain is 500,000, elsewhere {before:,}",
        ),
        (
            (*RECALL, "evaluator_version"),
            "lm-eval 0.4.9",
            "evaluator version of evaluate (lm eval recall) is lm-eval 0.4.9, elsewhere lm-eval 0.4.13",
        ),
        (
            (*RECALL, "truncated_contexts"),
            3,
            "truncated contexts of evaluate (lm eval recall) is 3, elsewhere 0",
        ),
        ((*RECALL, "num_fewshot", "recall"), 5, "is 5, elsewhere 0"),
        ((*RECALL, "task_versions", "recall"), 2.0, "is 2, elsewhere 1"),
    ],
)
def test_drift_of_a_real_record_is_found_where_real_records_state_it(
    real: list[Record], path: tuple[str, ...], value: Any, message: str
) -> None:
    place = next(i for i, r in enumerate(real) if r.levels["alignment"] == "dpo" and r.seed == 1)
    data = copy.deepcopy(dict(real[place].data))
    message = message.format(before=set_at(data, path, value))
    drifted = Record(data=data)
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


@pytest.mark.parametrize(
    ("method", "stage", "marked"),
    [
        ({"changes": [], "moves_facts": []}, [], 3),
        ({"changes": ["dtype"], "moves_facts": []}, [], 0),
        ({"changes": [], "moves_facts": ["dtype"]}, [], 0),
        ({"changes": [], "moves_facts": ["counts"]}, [], 3),
        ({"changes": [], "moves_facts": []}, [["blocks", "dtype"]], 3),
    ],
)
def test_a_third_partys_axis_says_itself_what_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], stage: list[Any], marked: int
) -> None:
    """`changes` and `moves_facts` of a plugin's methods count like those of built-in ones."""
    assert drifted(tmp_path, monkeypatch, "pruner", ["a", "b"], method=method, stage=stage) == marked


@pytest.mark.parametrize(
    ("moves", "marked"),
    [([], 3), ([["blocks", "dtype"]], 0), ([["others", "dtype"]], 3), ([["blocks", "counts"]], 3)],
)
def test_a_third_partys_stage_says_which_facts_its_options_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: list[Any], marked: int
) -> None:
    levels = {"few": {"fold.blocks": 1}, "many": {"fold.blocks": 9}}
    method = {"changes": [], "moves_facts": []}
    assert drifted(tmp_path, monkeypatch, "blocks", levels, method=method, stage=moves) == marked


def drifted(
    root: Path, monkeypatch: pytest.MonkeyPatch, factor: str, levels: Any, *, method: Any, stage: list[Any]
) -> int:
    """How many records are marked where the number format follows the factor, given what plugins declare."""
    from harness.registry import index as registry_index

    simulate.experiment(root, name="own", factors={factor: levels}, tasks=(), effects={})
    for path in root.glob("records/own/*/record.json"):
        record = json.loads(path.read_text())
        record["facts"]["pretrain"]["dtype"] = record["levels"][factor]
        path.write_text(json.dumps(record))
    fold = {
        "key": "fold",
        "produces": "model",
        "needs": ["model"],
        "decontaminates": "",
        "moves_facts": stage,
    }
    index = {"methods": [{"axis": "pruner", "name": "a", **method}], "stages": {"fold": fold}}
    monkeypatch.setattr(registry_index, "read", lambda: index)
    runs.measuring.cache_clear()
    found = comparability.comparable(records.read(root, "own"))
    runs.measuring.cache_clear()
    return len(found.marks)


def test_a_hash_of_a_stage_that_all_seeds_share_may_not_differ_between_seeds(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path, items=12)
    for path in root.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        if record["seed"] == 2:
            record["facts"]["corpus"]["sha256"] = "beef" * 16
            path.write_text(json.dumps(record))
    found = comparability.comparable(records.read(root, "demo"))
    assert {r.seed for r in found.records if r.cell in found.marks} == {2}
    assert len(found.marks) == 12
    assert {mark for marks in found.marks.values() for mark in marks} == {
        "content of corpus differs from the other rows'"
    }


def test_a_unit_or_a_direction_that_only_some_records_have_is_drift(tmp_path: Path) -> None:
    def named(record: dict[str, Any]) -> None:
        metric = next(m for m in record["metrics"] if m["task"] == "recall")
        metric.update(unit="points", higher_is_better=None)

    ((mark,),) = checked(tmp_path, named).marks.values()
    assert "measured unit of lm_eval (recall acc) is points, elsewhere none" in mark
    assert "measured higher is better of lm_eval (recall acc) is none, elsewhere true" in mark


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
    assert "tokens of pretrain is 250,000, elsewhere 300,000" in next(iter(found.marks.values()))[0]


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


def planted(real: list[Record], change: Change, **levels: Any) -> comparability.Comparable:
    """The real records with one of them changed; `levels` and `seed` choose it."""
    wanted = {"tuning": "lora", "alignment": "none", "bits": "16 bit", "seed": 1, **levels}
    place = next(
        i
        for i, r in enumerate(real)
        if {**r.levels, "seed": r.seed} == {k: wanted[k] for k in (*r.levels, "seed")}
    )
    data = copy.deepcopy(dict(real[place].data))
    change(data)
    return comparability.comparable([*real[:place], Record(data=data), *real[place + 1 :]])


def at(*path: str | int, to: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        node: Any = data
        for part in path[:-1]:
            if isinstance(node, list) and isinstance(part, str):
                part = next(i for i, item in enumerate(node) if part in (item.get("stage"), item.get("task")))
            node = node[part]
        assert node[path[-1]] != to
        node[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("config", "peft", "rank"), 4, "peft.rank is 4, elsewhere 16"),
        (("config", "peft", "alpha"), 3.0, "peft.alpha is 3.0"),
        (("config", "instruct", "learning_rate"), 0.1, "instruct.learning_rate is 0.1, elsewhere 0.003"),
        (("config", "instruct", "batch_size"), 4, "instruct.batch_size is 4, elsewhere 16"),
    ],
)
def test_a_seed_of_a_level_with_another_config_is_refused(
    real: list[Record], path: tuple[str, ...], value: Any, reason: str
) -> None:
    """What a factor frees must not vary inside its level."""
    found = planted(real, at(*path, to=value))
    assert [r.reason for r in found.records if r.status == "refused" and reason in r.reason]
    assert sum(r.status == "refused" for r in found.records) == 1


MEASUREMENT = ("facts", "evaluate", "lm_eval.recall")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("metrics", "recall", "n"), 100, "n of lm_eval"),
        (("metrics", "recall", "higher_is_better"), False, "higher is better of lm_eval"),
        (("metrics", "recall", "unit"), "points", "unit of lm_eval (recall acc) is points, elsewhere none"),
        ((*MEASUREMENT, "requests"), 400, "requests of evaluate (lm eval recall) is 400, elsewhere 800"),
        ((*MEASUREMENT, "max_length"), 128, "max length of evaluate (lm eval recall) is 128"),
        ((*MEASUREMENT, "template"), False, "template of evaluate (lm eval recall) is false"),
        (("facts", "evaluate", "win_rate.win_rate", "judge"), "openai", "judge of evaluate"),
        (("facts", "evaluate", "efficiency.efficiency", "threads"), 2, "threads of evaluate"),
        (("facts", "tokenizer", "vocab_size"), 512, "vocab size of tokenizer is 512, elsewhere 1,024"),
        (("facts", "instruct", "dtype"), "bfloat16", "dtype of instruct is bfloat16"),
        (("facts", "instruct", "device"), "cuda", "device of instruct is cuda"),
        (("facts", "instruct", "steps"), 100, "steps of instruct is 100, elsewhere 350"),
        (("stages", "pretrain", "key"), "f" * 64, "pretrain is another run than its config explains"),
    ],
)
def test_every_planted_fact_is_footnoted_on_its_cell(
    real: list[Record], path: tuple[str | int, ...], value: Any, said: str
) -> None:
    found = planted(real, at(*path, to=value))
    before = comparability.comparable(real)
    added = {c: sorted(set(m) - set(before.marks.get(c, ()))) for c, m in found.marks.items()}
    added = {c: m for c, m in added.items() if m}
    assert len(added) == 1, added
    assert said in " ".join(next(iter(added.values())))
    assert all(r.status == "ok" for r in found.records)
    assert "sha256" not in " ".join(t for m in found.marks.values() for t in m)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("provenance", "hardware", "cpu"), "Xeon", "Records of different machines: hardware.cpu"),
        (("provenance", "hardware", "cores"), 64, "Records of different machines: hardware.cores"),
        (
            ("provenance", "git", "dirty"),
            True,
            "git.uncommitted changes is false (records: 38), true (records: 1)",
        ),
        (("provenance", "git", "commit"), "e" * 40, "git.commit"),
        (("provenance", "python"), "3.12.1", "python.version is 3.11.7 (records: 38), 3.12.1 (records: 1)"),
        (("provenance", "versions", "torch"), "2.11.0", "versions.torch"),
        (("provenance", "harness"), "9.9", "harness.version"),
        (("provenance", "platform"), "macOS", "platform.version"),
    ],
)
def test_two_machines_commits_or_versions_are_said_for_the_whole_table(
    real: list[Record], path: tuple[str, ...], value: Any, said: str
) -> None:
    found = planted(real, at(*path, to=value))
    assert any(said in note for note in found.notes), found.notes
    assert all(r.status == "ok" for r in found.records)
    assert not any(said in note for note in comparability.comparable(real).notes)


def test_a_record_that_states_no_hardware_is_said_to_be_that(real: list[Record]) -> None:
    found = planted(real, at("provenance", "hardware", to={}))
    said = [note for note in found.notes if "Records of different machines" in note]
    assert any("not stated (records: 1)" in note for note in said)
    assert not any("{}" in note for note in said)


def test_threads_of_a_stage_are_a_fact(real: list[Record]) -> None:
    """Records say how many threads each stage had; one that had another number is footnoted."""
    data = [copy.deepcopy(dict(r.data)) for r in real]
    for i, row in enumerate(data):
        for stage in row["stages"]:
            stage["threads"] = 2 if i == 5 and stage["stage"] == "instruct" else 1
    found = comparability.comparable([Record(data=row) for row in data])
    assert found.marks[data[5]["cell"]][-1] == "measured threads of instruct is 2, elsewhere 1"


def test_a_level_that_removes_a_stage_frees_no_count_of_the_others(real: list[Record]) -> None:
    """`untuned` sets `instruction: none`; full and lora must have read as much as each other all the same."""
    data = [copy.deepcopy(dict(r.data)) for r in real]
    for row in data:
        if row["levels"]["tuning"] == "full":
            row["facts"]["instruct"]["tokens"] = 50_000
    found = comparability.comparable([Record(data=row) for row in data])
    assert any("tokens of instruct" in text for marks in found.marks.values() for text in marks)
    assert not any(
        "instruct" in text for marks in comparability.comparable(real).marks.values() for text in marks
    )


def test_counts_that_scatter_inside_levels_are_one_note_that_names_them(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"alignment": ["none", "dpo", "ppo"]}, tasks=(), effects={})
    for path in tmp_path.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        if (level := record["levels"]["alignment"]) != "none":
            tokens = {"dpo": 50_000, "ppo": 60_000}[level] + 1_000 * record["seed"]
            record["facts"]["align"] = {"tokens": tokens, "steps": 10}
            path.write_text(json.dumps(record))
    assert comparability.comparable(records.read(tmp_path, "demo")).notes == [
        "Measured tokens of align varies: 50,000 to 52,000 over the 3 records of alignment = dpo; 60,000 to "
        "62,000 over the 3 records of alignment = ppo."
    ]


@pytest.mark.parametrize("odd", [False, True])
def test_counts_that_a_seed_moves_alike_in_all_rows_are_no_drift(tmp_path: Path, odd: bool) -> None:
    """Each seed draws other documents, of other lengths; that one row saw more of them is drift."""
    simulate.experiment(tmp_path, tasks=(), effects={})
    paths = sorted(tmp_path.glob("records/demo/*/record.json"))
    for path in paths:
        record = json.loads(path.read_text())
        record["facts"]["instruct"]["tokens"] = (
            17_000 + 500 * record["seed"] + 900 * (odd and path == paths[3])
        )
        path.write_text(json.dumps(record))
    found = comparability.comparable(records.read(tmp_path, "demo"))
    assert bool(found.marks) == odd
    assert not any("tokens of instruct" in note for note in found.notes)


def test_equal_drift_of_several_cells_is_one_footnote(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=12)
    for i, tokens in ((0, 900_000), (5, 800_000)):
        simulate.edit(
            tmp_path, "demo", i, facts=lambda f, n=tokens: {**f, "pretrain": {**f["pretrain"], "tokens": n}}
        )
    marks = comparability.comparable(records.read(tmp_path, "demo")).marks
    texts = {text for texts in marks.values() for text in texts}
    assert len(marks) == 2
    assert len(texts) == 1
    assert "elsewhere 1,048,576" in texts.pop()


def test_facts_that_set_the_same_cells_apart_share_a_footnote(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=12)
    short = {"tokens": 900_000, "sequences": 900}
    for i in range(len(list(tmp_path.glob("records/demo/*/record.json")))):
        counts = {"sequences": 1_000} | (short if i == 3 else {})
        simulate.edit(
            tmp_path, "demo", i, facts=lambda f, n=counts: {**f, "pretrain": {**f["pretrain"], **n}}
        )
    (texts,) = comparability.comparable(records.read(tmp_path, "demo")).marks.values()
    assert texts == [
        "measured tokens of pretrain is 900,000, elsewhere 1,048,576; "
        "measured sequences of pretrain is 900, elsewhere 1,000"
    ]


def test_a_level_that_sets_an_axis_others_leave_alone_explains_a_run_of_its_own() -> None:
    committed = Path(__file__).parents[2] / "reports/context_extension/records.json.gz"
    assert reruns.other_runs(list(compact.read_compact(committed))) == {}  # alibi is trained on its own


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 1, 2], "1 or 2"),
        (["bfloat16", "float16", "float32", "float64"], "bfloat16 or float16 or float32 or float64"),
        ([5.13644, 47.0588, 15.2381, 30.4762], "5.13644 to 47.0588"),
    ],
)
def test_more_than_three_numbers_are_told_by_their_range(values: list[object], said: str) -> None:
    assert drift.in_short(values) == said


def changed(value: Any, how: str) -> Any:
    """Another value of the same kind: more or less of a number."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1 if how == "more" else value / 2 - 1
    if isinstance(value, Mapping):
        return {key: changed(inner, how) for key, inner in value.items()} or {"other": 1}
    return f"other {value}" if how == "more" else ""


def leaf_of(node: Any, path: str) -> tuple[dict[str, Any], str] | None:
    """The mapping that holds a dotted path, whose names may hold dots, and the last name."""
    if not isinstance(node, dict):
        return None
    if path in node:
        return node, path
    inner = (
        leaf_of(part, path.removeprefix(f"{k}.")) for k, part in node.items() if path.startswith(f"{k}.")
    )
    return next((found for found in inner if found), None)


@pytest.mark.parametrize("name", turns.fast(["demo", "instruction_tuning"], ["instruction_tuning"]))
def test_drift_of_any_controlled_fact_is_seen_in_both_directions_and_where_it_is_not_stated(
    name: str,
) -> None:
    """Every fact that real records state, one of each name: more, less, and left out, in one cell."""
    real = compact.read_compact(Path(__file__).parents[2] / "reports" / name / "records.json.gz")
    ok = [record for record in real if record.status == "ok"]
    notes, marks = drift.drifted_facts(ok)
    place = next(i for i, r in enumerate(ok) if sum(r.levels == other.levels for other in ok) > 1)
    data = ok[place].data
    paths = [p for p, value in flatten(data["facts"]) if drift.is_controlled(p) and value not in (None, "")]
    paths = list({(p.partition(".")[0], p.rpartition(".")[2]): p for p in paths}.values())
    assert len(paths) > 20
    unseen = []
    for path, how in itertools.product(paths, ("more", "less", "gone")):
        altered = {**data, "facts": copy.deepcopy(data["facts"])}
        holder, last = leaf_of(altered["facts"], path) or ({}, "")
        if how == "gone":
            del holder[last]
        else:
            holder[last] = changed(holder[last], how)
        found = drift.drifted_facts([*ok[:place], Record(data=altered), *ok[place + 1 :]])
        if (sorted(found[0]), found[1]) == (sorted(notes), marks):
            unseen.append((path, how))
    assert not unseen
