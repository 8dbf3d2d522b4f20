"""Records of several places in one report: stores, committed reports and their files, archives."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import simulate

import harness
from harness.errors import ConfigError, DataError
from harness.report import records
from harness.report.commands import main
from harness.report.committed import rebuild
from harness.report.making import report
from harness.store import Store, archive

FACTORS = {"peft": ["full", "lora"]}
TABLES = ("csv", "json", "md")


def store(folder: Path, *, seeds: tuple[int, ...] = (0, 1, 2), **options: Any) -> Path:
    return simulate.experiment(folder, factors=FACTORS, seeds=seeds, items=8, **options)


def moved(source: Path, target: Path, *, seed: int) -> Path:
    """The records of one seed, taken from a store into another."""
    for file in source.glob("records/demo/*/record.json"):
        if json.loads(file.read_text())["seed"] == seed:
            goal = target / file.parent.relative_to(source)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file.parent, goal)
    return target


def packed(root: Path, place: Path) -> Path:
    """An archive of the first record of a store."""
    folder = next(root.glob("records/demo/*"))
    archive.pack(Store(root), place, where=folder, place=f"records/demo/{folder.name}", keys=[])
    return place


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("form", ["store", "report", "file"])
def test_a_report_of_two_places_is_that_of_all_records_in_one(form: str, tmp_path: Path) -> None:
    whole = report("demo", store=store(tmp_path / "all"), out=tmp_path / "whole", formats=TABLES, quiet=True)
    first = store(tmp_path / "first")
    second = moved(first, tmp_path / "second", seed=2)
    place: Path = second
    if form != "store":
        place = report("demo", store=second, out=tmp_path / "half", formats=("csv",), quiet=True)
        place = place if form == "report" else place / "records.json.gz"
    out = tmp_path / "joined"
    report("demo", store=first, records=[place], out=out, formats=TABLES, quiet=True)
    assert {n: c for n, c in files(out).items() if n != "records.json.gz"} == {
        n: c for n, c in files(whole).items() if n != "records.json.gz"
    }


def test_an_archive_joins_with_its_samples_and_leaves_its_artifacts(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    file = packed(root, tmp_path / "cell.tar.gz")
    (inside,) = records.read(tmp_path / "empty", "demo", beside=[file])
    (own,) = (r for r in records.read(root, "demo") if r.cell == inside.cell)
    assert inside.data == own.data
    for name in own.sample_names:
        ours, theirs = own.samples(name), inside.samples(name)
        assert ours is not None
        assert theirs is not None
        assert theirs.table.equals(ours.table)
    assert len(records.read(root, "demo", beside=[file])) == 6


def test_the_joined_records_are_a_committed_report_that_grows_in_place(tmp_path: Path) -> None:
    first = store(tmp_path / "first")
    second = moved(first, tmp_path / "second", seed=2)
    folder = tmp_path / "reports/demo"
    for place in (first, second):
        beside = [folder] if folder.exists() else []
        report("demo", store=place, records=beside, out=folder, formats=TABLES, quiet=True)
    assert len(records.read(folder / "records.json.gz", "demo")) == 6
    before = files(folder)
    assert list(rebuild(tmp_path / "reports", formats=TABLES)) == [folder]
    assert files(folder) == before


def test_the_command_and_the_functions_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = store(tmp_path / "first")
    second, third = (moved(first, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    out = str(tmp_path / "out")
    line = ["demo", "--store", str(first), "--with", str(second), "--with", str(third), "--out", out]
    assert main([*line, "--format", "csv"]) == 0
    assert "Report:" in capsys.readouterr().out
    assert len(records.read(tmp_path / "out/records.json.gz", "demo")) == 6
    found = harness.records("demo", store=first, records=[second, Store(third)])
    assert found["cell"].nunique() == 6
    made = harness.report("demo", store=first, records=[out], out=tmp_path / "o", formats=["csv"])
    assert made.content.results.seeds == [0, 1, 2]
    with pytest.raises(
        ConfigError, match=r"use `harness report demo --with reports/demo --out reports/demo`"
    ):
        main(["demo", "--committed", "--with", str(second)])


def test_cells_choose_among_the_records_of_the_store_alone(tmp_path: Path) -> None:
    first = store(tmp_path / "first")
    second = moved(first, tmp_path / "second", seed=2)
    cell = records.read(first, "demo")[0].cell
    assert len(records.read(first, "demo", cells=[cell], beside=[second])) == 3


def test_an_equal_record_counts_once_and_the_store_has_its_texts(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    compact = report("demo", store=root, out=tmp_path / "out", formats=("csv",), quiet=True)
    found = records.read(root, "demo", beside=[compact])
    assert len(found) == 6
    assert all(record.folder is not None for record in found)


def later(root: Path, **changes: Any) -> Path:
    """The first record of a store, as it came of a later run."""
    record = json.loads(next(root.glob("records/demo/*/record.json")).read_text())
    place = {**record["provenance"], "finished": "2027-01-01T00:00:00+00:00"}
    for key, value in changes.items():
        record[key] = value(record[key])
    return simulate.write(root.parent / "later", {**record, "provenance": place}).parents[2]


def notes(root: Path, *others: Path) -> str:
    out = report("demo", store=root, records=others, out=root / "out", formats=("md",), quiet=True)
    return (out / "README.md").read_text()


def test_of_two_runs_with_equal_numbers_the_newer_stands_and_nothing_is_said(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    other = later(root)
    found = records.read(root, "demo", beside=[other])
    assert len(found) == 6
    assert found[-1].finished.startswith("2027")
    assert "Several records" not in notes(root, other)


def test_two_runs_of_the_same_stages_with_other_numbers_are_named(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    other = later(root, metrics=lambda metrics: [{**metrics[0], "value": 2.25}, *metrics[1:]])
    text = notes(root, other)
    assert "Several records of peft = " in text
    assert "The same stages gave other numbers when they ran again (peft = " in text
    assert "perplexity.perplexity.bits_per_byte 2.25 now, " in text
    # The committed file says it too.
    assert notes(root, root / "out/records.json.gz") == text


def test_times_differ_by_nature_and_are_not_named(tmp_path: Path) -> None:
    root = store(tmp_path / "store")

    def faster(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**m, "value": m["value"] * (2 if m["metric"] == "tokens_per_second" else 1)} for m in metrics
        ]

    assert "gave other numbers" not in notes(root, later(root, metrics=faster))


def test_another_run_of_other_stages_gives_way_to_the_newer(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    text = notes(root, later(root, stages=lambda stages: [{**s, "key": "0" * 64} for s in stages]))
    assert "Several records of peft = " in text
    assert "gave other numbers" not in text


def test_a_later_run_that_broke_down_takes_no_number_away(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    lost = {"status": "oom", "reason": "needs 3 GiB", "stage": "instruct", "step": None}
    other = later(root, outcome=lambda _: lost, metrics=lambda _: [])
    results = harness.report("demo", store=root, records=[other], out=tmp_path / "o", formats=["csv"]).content
    assert {record.status for record in results.results.all_records()} == {"ok"}
    diverged = {"status": "diverged", "reason": "nan", "stage": "instruct", "step": 3}
    other = later(root, outcome=lambda _: diverged, metrics=lambda _: [])
    results = harness.report("demo", store=root, records=[other], out=tmp_path / "o", formats=["csv"]).content
    assert "diverged" in {record.status for record in results.results.all_records()}


def test_what_ran_elsewhere_is_said(tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    other = moved(root, tmp_path / "other", seed=2)
    for file in other.glob("records/demo/*/record.json"):
        record = json.loads(file.read_text())
        record["provenance"]["hardware"]["cpu"] = "64 cores"
        record["provenance"]["git"]["commit"] = "f" * 40
        file.write_text(json.dumps(record))
    text = notes(root, other)
    assert (
        "Records of different machines: hardware.cpu is 2 cores (records: 4), 64 cores (records: 2)" in text
    )
    assert "git.commit is 59b613d00000 (records: 4), ffffffffffff (records: 2)" in text


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", r"nowhere holds no records; name a store, a committed report or its records\.json\.gz"),
        ("folder", "folder holds no records"),
        ("damaged.json.gz", r"damaged\.json\.gz is not a file of records"),
        ("other.json.gz", r"no records of experiment 'demo' in .*other\.json\.gz\. With records: other"),
        (
            "strange.tar.gz",
            r"strange\.tar\.gz is no archive of `harness store export`: it holds \.\./outside",
        ),
        ("cut.tar.gz", r"cut\.tar\.gz"),
        ("broken.tar.gz", r"broken\.tar\.gz: records/demo/a/record\.json is not a record"),
    ],
)
def test_a_place_that_cannot_join_is_named(place: str, said: str, tmp_path: Path) -> None:
    root = store(tmp_path / "store")
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged.json.gz").write_bytes(b"\x1f\x8b damaged")
    other = simulate.experiment(tmp_path / "o", name="other", factors=FACTORS, seeds=(0,), items=4)
    shutil.copy(
        report("other", store=other, out=tmp_path / "x", formats=("csv",), quiet=True) / "records.json.gz",
        tmp_path / "other.json.gz",
    )
    (tmp_path / "one").write_text("{}")
    for name, entry in (("strange", "../outside"), ("broken", "records/demo/a/record.json")):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as made:
            made.add(tmp_path / "one", arcname=entry)
    whole = packed(root, tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=said):
        records.read(root, "demo", beside=[tmp_path / place])
    assert not (tmp_path / "outside").exists()


def test_a_damaged_record_of_another_store_is_set_aside_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = store(tmp_path / "store")
    other = moved(root, tmp_path / "other", seed=2)
    file = next(other.glob("records/demo/*/record.json"))
    file.write_text("{")
    assert len(records.read(root, "demo", beside=[other])) == 5
    assert str(file) in caplog.text
    assert len(list((other / "corrupt").iterdir())) == 1
