"""Records: what is damaged is named and set aside, and no name becomes a path that it should not."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, StoreError
from harness.store.records import read_record, record_dir, records, sweep_dir, sweep_name, write_record

RECORD: dict[str, Any] = {
    **{name: {} for name in ("config", "experiment", "levels")},
    "sweep": "demo",
    "cell": "cell",
    "seed": 0,
    "outcome": {"status": "ok"},
    "metrics": [],
    "stages": [],
}
METRIC = {"evaluator": "a", "task": "b", "metric": "c", "value": 0.5, "stderr": None}
STAGE = {"stage": "a", "key": "b", "threads": 1, "seconds": 0.5}
DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    '{"format": 1}',
    '{"format": "1"}',
    '{"format": true}',
    "[" * 100_000,
    "\x00" * 50,
    *(json.dumps({**RECORD, "format": 1, name: value}) for name in RECORD for value in (None, 1.5)),
    json.dumps({**RECORD, "format": 1, "outcome": {}}),
    json.dumps({**RECORD, "format": 1, "stages": [{"stage": "a"}]}),
    json.dumps({**RECORD, "format": 1, "metrics": [1]}),
    json.dumps({**RECORD, "format": 1, "metrics": [{"evaluator": "a", "task": "b", "metric": "c"}]}),
    *(json.dumps({**RECORD, "format": 1, "metrics": [{**METRIC, key: []}]}) for key in METRIC),
    *(json.dumps({**RECORD, "format": 1, "stages": [{**STAGE, key: []}]}) for key in STAGE),
    *(json.dumps({**RECORD, "format": 1, name: 7}) for name in ("facts", "effects", "provenance")),
    json.dumps({**RECORD, "format": 1, "facts": {"evaluate": "x"}}),
]


def test_records_come_back_and_newer_ones_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "records" / "demo" / "cell"
    write_record(directory, RECORD)
    assert read_record(directory)["cell"] == "cell"
    assert [found["cell"] for _, found in records(tmp_path, sweep="demo")] == ["cell"]
    (directory / "record.json").write_text('{"format": 7}')
    with pytest.raises(StoreError, match=r"newer version of harness \(format 7"):
        read_record(directory)


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_set_aside_and_the_others_are_read(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    for cell in ("bad", "good"):
        write_record(tmp_path / "records" / "demo" / cell, {**RECORD, "cell": cell})
    file = tmp_path / "records" / "demo" / "bad" / "record.json"
    file.write_text(content)
    with pytest.raises(StoreError, match=r"bad/record.json is not a record: .*Run the sweep again"):
        read_record(file)
    assert [found["cell"] for _, found in records(tmp_path)] == ["good"]
    assert f"{file} is not a record" in caplog.text
    (aside,) = (tmp_path / "corrupt").iterdir()
    assert aside.read_text() == content
    caplog.clear()
    assert [found["cell"] for _, found in records(tmp_path)] == ["good"]
    assert caplog.text == ""


NO_NAMES = (
    "../../../x",
    "..",
    ".",
    "",
    "/etc",
    "a/../../b/..",
    "a\nb",
    "a*",
    "a[1]",
    "-rf",
    "a\x00b",
    "a" * 201,
)


@pytest.mark.parametrize("text", [*NO_NAMES, "a.", "~/x", "a|b", ".hidden", "a/"])
def test_what_is_no_name_of_a_sweep_never_becomes_a_path(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a sweep"):
        record_dir(tmp_path, sweep=text, cell="0")


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "team/first",
        "a.b_c-d",
        "optimizer@align.optimizer_x_seed",
        "bits=4,8",
        "my run",
        "größe",
        "8bit",
    ],
)
def test_names_of_sweeps_are_one_folder(tmp_path: Path, text: str) -> None:
    folder = sweep_dir(tmp_path, text)
    assert folder.parent == tmp_path / "records"
    assert folder.name == text.replace("/", ".")
    assert sweep_name(folder.name) == folder.name
