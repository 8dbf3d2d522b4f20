"""Reading and arranging records."""

import json
from pathlib import Path

import numpy as np
import pytest
import simulate

from harness.errors import ConfigError, DataError, UnknownNameError
from harness.report import arrange, compact, frames, measurements, records
from harness.report.samples import shown_items


def results_of(store: Path) -> frames.Results:
    return arrange.arrange(records.read(store, "demo"))


def test_a_frame_has_one_row_a_cell_and_metric(demo_store: Path) -> None:
    frame = measurements.load(demo_store, "demo")
    assert len(frame) == 12 * 3 * 6
    assert {"peft", "alignment", "quantizer", "seed", "outcome", "value", "stderr", "n"} <= set(frame.columns)


def test_the_frame_has_facts_directions_and_ordered_levels(demo_store: Path) -> None:
    frame = measurements.load(demo_store, "demo")
    assert list(frame["quantizer"].cat.categories) == ["16 bit", "8 bit", "4 bit"]
    assert frame["quantizer"].cat.ordered
    assert set(frame["pretrain.tokens"]) == {1_048_576}
    direction = frame.groupby("metric", observed=True)["higher_is_better"].first()
    assert direction["acc"]
    assert not direction["bits_per_byte"]


def test_the_public_call_reads_the_same_frame(demo_store: Path) -> None:
    import harness

    assert harness.records("demo", store=demo_store).equals(measurements.load(demo_store, "demo"))


def test_a_factor_keeps_its_column_beside_a_fact_of_its_name(tmp_path: Path) -> None:
    """An ad-hoc sweep's factor is called like the option that it sets, and a stage measures that too."""
    name = "pretrain.effective_batch"
    simulate.experiment(tmp_path, factors={name: ["8", "16"], "value": ["a", "b"]}, tasks=())
    frame = measurements.load(tmp_path, "demo")
    assert list(frame[name].cat.categories) == ["8", "16"]
    assert set(frame[name]) == {"8", "16"}
    assert set(frame[f"fact.{name}"]) == {16.0}
    assert set(frame["factor.value"]) == {"a", "b"}


def test_levels_keep_the_order_of_the_experiment(demo_store: Path) -> None:
    assert results_of(demo_store).factors["quantizer"] == ["16 bit", "8 bit", "4 bit"]


def test_no_records_is_an_error_that_names_those_there_are(demo_store: Path) -> None:
    with pytest.raises(DataError, match=r"no records of experiment 'demonstration'.*With records: demo"):
        records.read(demo_store, "demonstration")


def test_a_failed_cell_has_a_row_that_says_why(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=5)
    outcome = {"status": "oom", "reason": "needs 3 GiB", "stage": "instruct", "step": None}
    simulate.edit(tmp_path, "demo", 3, outcome=outcome, metrics=[])
    frame = measurements.load(tmp_path, "demo")
    failed = frame[frame.outcome == "oom"]
    assert len(failed) == 1
    assert failed.reason.item() == "oom in instruct: needs 3 GiB"


def test_a_truncated_record_is_set_aside_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulate.experiment(tmp_path, items=5)
    path = next(tmp_path.glob("records/demo/*/record.json"))
    path.write_text(path.read_text()[:100])
    assert len(records.read(tmp_path, "demo")) == 35
    assert str(path) in caplog.text


def test_a_metric_is_found_by_its_last_parts_only_where_one_fits(demo_store: Path) -> None:
    results = results_of(demo_store)
    assert results.resolve("recall.acc") == "lm_eval.recall.acc"
    assert results.resolve("pretrain.steps") == "pretrain.steps"
    with pytest.raises(ConfigError, match=r"fits lm_eval\.instructions\.acc, lm_eval\.recall\.acc"):
        results.resolve("acc")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'lm_eval\.recall\.acc'"):
        results.resolve("lm_eval.recal.acc")


def test_an_average_over_a_factor_is_the_mean_per_seed_and_per_item(demo_store: Path) -> None:
    results = results_of(demo_store)
    pooled = results.measured({"quantizer": "4 bit"}, "lm_eval.recall.acc")
    parts = [
        results.measured({"quantizer": "4 bit", "peft": p, "alignment": a}, "lm_eval.recall.acc")
        for p in ("full", "lora")
        for a in ("none", "dpo")
    ]
    assert pooled is not None
    assert pooled.items_SD is not None
    for i, seed in enumerate(pooled.seeds):
        assert pooled.values[seed] == pytest.approx(np.mean([p.values[seed] for p in parts if p]))
        assert pooled.items_SD[i].mean() == pytest.approx(pooled.values[seed])


def test_items_are_paired_on_their_hash_and_not_on_their_place(tmp_path: Path) -> None:
    import pandas as pd

    simulate.experiment(tmp_path, items=30, seeds=(0,))
    before = results_of(tmp_path).measured({"peft": "lora"}, "lm_eval.recall.acc")
    for path in tmp_path.glob("records/demo/*/samples/lm_eval.recall.parquet"):
        pd.read_parquet(path).sample(frac=1, random_state=hash(path.parent.parent.name) % 97).to_parquet(path)
    after = results_of(tmp_path)
    columns = after._item_matrix("lm_eval.recall.acc")
    assert columns is not None
    assert before is not None
    assert before.items_SD is not None
    rows = [columns[1][r.cell] for r in after.all_records() if r.levels["peft"] == "lora"]
    assert sorted(columns[0][rows].mean(axis=0)) == pytest.approx(sorted(before.items_SD[0]))


def test_a_metric_that_is_no_mean_of_its_items_is_not_tested_over_items(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=30, seeds=(0,))

    def shifted(metrics: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{**m, "value": m["value"] + 0.2} for m in metrics]

    simulate.edit(tmp_path, "demo", 0, metrics=shifted)
    found = results_of(tmp_path).measured({}, "lm_eval.recall.acc")
    assert found is not None
    assert found.items_SD is None


def test_of_duplicate_records_the_newest_is_kept_and_it_is_said(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, items=5)
    path = sorted(tmp_path.glob("records/demo/*/record.json"))[0]
    copy = json.loads(path.read_text())
    copy.update(cell="f" * 16, provenance={**copy["provenance"], "finished": "2027-01-01T00:00:00+00:00"})
    simulate.write(tmp_path, copy)
    results = results_of(tmp_path)
    assert "f" * 16 in {r.cell for r in results.all_records()}
    assert len(results.all_records()) == 36
    assert any("Several records of peft = " in note for note in results.notes)


def test_a_compact_file_gives_the_same_results_as_the_folder(demo_store: Path, tmp_path: Path) -> None:
    folder = records.read(demo_store, "demo")
    shown = shown_items(folder)
    compact.write_compact(folder, tmp_path / "records.json.gz", shown=shown)
    first = (tmp_path / "records.json.gz").read_bytes()
    again = records.read(tmp_path / "records.json.gz", "demo")
    compact.write_compact(again, tmp_path / "records.json.gz", shown=shown_items(again))
    assert (tmp_path / "records.json.gz").read_bytes() == first, "the compact form must be a fixed point"
    a, b = arrange.arrange(folder), arrange.arrange(again)
    for where in ({"peft": "lora"}, {"quantizer": "4 bit", "alignment": "dpo"}):
        x, y = (r.measured(where, "lm_eval.recall.acc") for r in (a, b))
        assert x is not None
        assert y is not None
        assert x.values == y.values
        assert np.array_equal(x.items_SD, y.items_SD)  # type: ignore[arg-type]


def test_paths_of_a_store_leave_it_as_paths_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    root = simulate.experiment(tmp_path / "store", tasks=(), factors={"peft": ["full", "lora"]})
    simulate.edit(
        root,
        "demo",
        0,
        config={"model": {"path": f"{root}/models/some.gguf", "data": f"{tmp_path}/data/a.json"}},
    )
    found = records.read(root, "demo")
    compact.write_compact(found, tmp_path / "records.json", shown={}, roots=[root])
    text = (tmp_path / "records.json").read_text()
    assert '"$HARNESS_STORE/models/some.gguf"' in text
    assert '"$HARNESS_DATA/a.json"' in text
    assert str(tmp_path) not in text
