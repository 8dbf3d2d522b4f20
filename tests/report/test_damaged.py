"""Records and samples with something else in one place: set aside and named, or reported."""

from __future__ import annotations

import gzip
import json
import random
import resource
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import simulate
from wrong_places import places, with_wrong

from harness.errors import DataError, HarnessError
from harness.report import compact, records, scored
from harness.report.making import report

WRONG: list[Any] = [3, -1.5, "x", True, None, [], [1], {}, {"a": {"b": 1}}, {"a": [1]}]
FREE = ("config", "levels", "provenance", "effects")
"""Parts whose values are anybody's; their first two levels are damaged."""
DETAILS = {
    "overrides": ["seed=0"],
    "tune": {
        "search": "grid",
        "metric": "perplexity.perplexity.bits_per_byte",
        "split": "validation",
        "seed": 0,
        "chosen": {"pretrain.learning_rate": 1e-3},
        "value": 2.0,
        "edge": [],
        "trials": [{"trial": 1, "cell": "a", "point": {}, "status": "ok", "value": 2.0}],
    },
}
DECONTAMINATED = {"dropped": 1, "seen": 2, "ngram": 8, "by_source": {"mqar": 1}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four records with everything that a report reads."""
    factors = {"peft": ["full", "lora"]}
    root = simulate.experiment(
        tmp_path_factory.mktemp("damaged"),
        factors=factors,
        seeds=(0, 1),
        items=6,
        claims=[{"says": "recall.acc[peft=full] > recall.acc[peft=lora]", "source": "x"}],
        report={"rows": ["peft"], "metrics": ["recall.acc", {"metric": "bits_per_byte", "format": ".2f"}]},
    )
    for place in range(4):
        simulate.edit(
            root,
            "demo",
            place,
            **DETAILS,
            facts=lambda facts: {**facts, "decontaminate": {"decontaminated": DECONTAMINATED}},
            stages=lambda stages: [{**stage, "threads": 1, "alone": True} for stage in stages],
        )
    return root


def is_open(place: tuple[Any, ...]) -> bool:
    return place[0] not in FREE or len(place) <= 2


def reported(store: Path, folder: Path, record: dict[str, Any], cases: list[Any], formats: list[str]) -> None:
    """Make a report with each damage in the newest record; what it says must be an answer."""
    file = folder / "record.json"
    for place, wrong in cases:
        file.write_text(json.dumps(with_wrong(record, place, wrong)))
        # Of one table for all records, the newest one's question is taken.
        answers = suppress(HarnessError) if place[0] in ("experiment", "format", "metrics") else nullcontext()
        with answers:
            report("demo", store=store, out=store / "out", formats=formats, quiet=True)
        file.write_text(json.dumps(record))


def newest(store: Path) -> tuple[Path, dict[str, Any]]:
    record = records.read(store, "demo")[-1]
    assert record.folder is not None
    return record.folder, dict(record.data)


def cases_of(record: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    return [(place, wrong) for place in places(record, first_alone=True, opens=is_open) for wrong in WRONG]


def test_some_places_of_a_record_hold_what_they_cannot(store: Path) -> None:
    folder, record = newest(store)
    reported(store, folder, record, random.Random(1).sample(cases_of(record), 5), ["csv"])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_every_place_of_a_record_holds_what_it_cannot(part: int, store: Path) -> None:
    folder, record = newest(store)
    reported(store, folder, record, cases_of(record)[part::8], ["md", "csv", "latex", "json", "html"])


@pytest.mark.parametrize("curve", [3, [[0, 1, 2]], [["a", 1.0]], {"0": 1.0}])
def test_a_record_with_a_damaged_curve_is_damaged_for_every_reader(
    curve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full", "lora"]}, seeds=(0,), items=4)
    simulate.edit(tmp_path, "demo", 0, facts=lambda f: {**f, "pretrain": {"steps": 1, "loss_curve": curve}})
    assert len(records.read(tmp_path, "demo")) == 1
    assert "facts.pretrain.loss_curve" in caplog.text


@pytest.mark.parametrize("wrong", [{"dropped": 1}, 3])
def test_what_says_nothing_readable_of_test_items_is_left_out(wrong: Any, tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full"]}, seeds=(0,), items=4)
    simulate.edit(
        tmp_path, "demo", 0, facts=lambda f: {**f, "instruct": {"steps": 1, "decontaminated": wrong}}
    )
    out = report("demo", store=tmp_path, out=tmp_path / "out", formats=["md"], quiet=True)
    assert "Decontaminated" not in (out / "README.md").read_text()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"[]", b"\x00" * 64])
def test_damaged_samples_are_set_aside_and_the_numbers_stay(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full", "lora"]}, seeds=(0,), items=8)
    file = next(tmp_path.glob("records/demo/*/samples/lm_eval.recall.parquet"))
    file.write_bytes(content)
    out = report("demo", store=tmp_path, out=tmp_path / "out", formats=["csv"], quiet=True)
    assert "recall" in (out / "table.csv").read_text()
    assert f"{file} cannot be read as samples" in caplog.text
    assert not file.exists()
    (aside,) = (tmp_path / "corrupt").iterdir()
    assert aside.read_bytes() == content


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"doc_hash": [1, 2], "acc": [0.0, 1.0]}, "its doc_hash is no text"),
        ({"doc_hash": ["a", None], "acc": [0.0, 1.0]}, "its doc_hash is no text"),
    ],
)
def test_samples_without_documents_are_none(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame(columns).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=said):
        scored.Scored.read(tmp_path / "x.parquet")


def test_a_metric_that_samples_have_as_text_has_no_items(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full", "lora"]}, seeds=(0, 1, 2), items=8)
    for file in tmp_path.glob("records/demo/*/samples/lm_eval.recall.parquet"):
        import pandas as pd

        pd.read_parquet(file).assign(acc="x").to_parquet(file)
    out = report("demo", store=tmp_path, out=tmp_path / "out", formats=["csv", "html"], quiet=True)
    assert "recall" in (out / "table.csv").read_text()


ROW = {"docs": [0], "values": {"acc": [1.0]}, "texts": {}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("documents"), "lacks documents"),
        (lambda c: c.update(records=[3]), r"records\.0 is an integer"),
        (lambda c: c["records"][0].pop("seed"), "record 0 is none: it lacks seed"),
        (lambda c: c["records"][0].update(samples=[]), "record 0 is none: samples is a list"),
        (lambda c: c["records"][0].update(samples={"t": {**ROW, "docs": [9]}}), "not one value for each"),
        (lambda c: c["records"][0].update(samples={"t": {**ROW, "docs": [0, 0]}}), "not one value for each"),
        (lambda c: c["records"][0].update(samples={"u": ROW}), "not one value for each"),
        (lambda c: c.update(format=9), "is of format 9; this harness reads 1"),
    ],
)
def test_a_damaged_file_of_records_says_where(change: Any, said: str, tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full"]}, seeds=(0,), items=4)
    (row,) = (dict(record.data) for record in records.read(tmp_path, "demo"))
    content = {"format": 1, "documents": {"t": ["a"]}, "records": [{**row, "samples": {"t": ROW}}]}
    file = tmp_path / "records.json.gz"
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert len(compact.read_compact(file)) == 1
    change(content)
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(HarnessError, match=said):
        compact.read_compact(file)


def test_a_report_that_finds_no_room_leaves_the_one_before_whole(store: Path, tmp_path: Path) -> None:
    """Each file of a committed report was cut where the disk ended, and its figures were gone."""
    formats = ["md", "csv", "latex", "json", "html"]
    report("demo", store=store, out=tmp_path, formats=formats, quiet=True)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".svg" for path in whole)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for bound in (100, 2_000, 10_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                report("demo", store=store, out=tmp_path, formats=formats, quiet=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == whole
