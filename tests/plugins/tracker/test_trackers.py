"""Trackers read back by the tools their files are made for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness_plugins.tracker.jsonl import JsonLines
from harness_plugins.tracker.tensorboard import TensorBoard
from harness_plugins.tracker.wandb import Mode, Wandb

from harness.conformance.test_tracker import RECORD, STEPS, run_of, tell


def test_jsonl_holds_every_event_and_begins_anew_with_a_run(tmp_path: Path) -> None:
    for _ in range(2):
        tell(JsonLines(), run_of(tmp_path), RECORD)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["run_started", *["training_step"] * len(STEPS), *["stage_finished"] * 2, "cell_finished"]
    assert events[-1]["metrics"] == RECORD["metrics"]


def test_jsonl_keeps_every_nth_step(tmp_path: Path) -> None:
    tell(JsonLines(JsonLines.Config(every=2)), run_of(tmp_path), RECORD)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "training_step"] == [1, 3]


def wandb_records(path: Path) -> list[Any]:
    """Records of an offline run, parsed by wandb's own protocol (LevelDB's log format around them)."""
    from wandb.proto import wandb_internal_pb2

    data, position, whole, found = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # full, last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found


def finished(directory: Path) -> list[Any]:
    """Records of the only run, once wandb's own process has written the last of them."""
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(300):
        records = wandb_records(file)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} does not end")


def test_wandb_reads_back_config_curves_and_summary(tmp_path: Path) -> None:
    tell(Wandb(), run_of(tmp_path), RECORD)
    records = finished(tmp_path)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.run_group, run.job_type) == ("0123456789abcdef", "trial", "peft=lora")
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["peft"] == {"method": "lora", "rank": 8}
    history = [record.history for record in records if record.WhichOneof("record_type") == "history"]
    rows = [
        {item.key or "/".join(item.nested_key): item.value_json for item in step.item} for step in history
    ]
    assert [row["pretrain/step"] for row in rows] == [str(step) for step in range(len(STEPS))]
    assert rows[0]["pretrain/loss"] in ("3", "3.0")
    summary: dict[str, str] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = item.value_json
    assert json.loads(summary["lm_eval/recall/acc"]) == 0.25
    assert json.loads(summary["outcome"]) == "ok"


def test_wandb_keeps_the_report_of_a_sweep_as_an_artifact(tmp_path: Path) -> None:
    report = tmp_path / "reports" / "trial"
    (report / "figures").mkdir(parents=True)
    (report / "index.html").write_text("<h1>trial</h1>")
    (report / "figures" / "pareto.svg").write_text("<svg/>")
    records = tmp_path / "store" / "records" / "trial"
    Wandb().report_written({"sweep": "trial of x/y", "directory": str(records)}, str(report))
    found = finished(records)
    shutil.rmtree(report)
    (run,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (run.run_group, run.job_type) == ("trial of x/y", "report")
    kinds = {record.WhichOneof("record_type"): record for record in found}
    artifact = kinds["artifact"].artifact
    assert (artifact.name, artifact.type) == ("trial-of-x-y-report", "report")
    entries = {entry.path: Path(entry.local_path).read_text() for entry in artifact.manifest.contents}
    assert all(Path(entry.local_path).is_relative_to(records) for entry in artifact.manifest.contents)
    assert entries == {"index.html": "<h1>trial</h1>", "figures/pareto.svg": "<svg/>"}


def test_wandbs_own_command_line_knows_the_runs(tmp_path: Path) -> None:
    tell(Wandb(), run_of(tmp_path), RECORD)
    finished(tmp_path)
    (run,) = tmp_path.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "0123456789abcdef" in done.stdout + done.stderr


def test_wandb_online_without_a_login_is_refused_by_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    online = Wandb.Config(mode=Mode.online)
    (problem,) = Wandb.check(online, None, None)
    assert "wandb login" in str(problem)
    assert problem.fatal
    assert not list(Wandb.check(Wandb.Config(), None, None))
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    (tmp_path / "netrc").chmod(0o600)
    assert not list(Wandb.check(online, None, None))
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert not list(Wandb.check(Wandb.Config(mode=Mode.online, base_url="https://own.example"), None, None))


def test_tensorboard_reads_back_curves_and_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell(TensorBoard(), run_of(tmp_path), RECORD)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("pretrain/loss")] == [0, 1, 2]
    assert found.Scalars("lm_eval/recall/acc")[0].value == 0.25


def test_the_plan_asks_trackers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.compose import compose
    from harness.plan.problems import problems

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cell = compose(["tracker=[jsonl,wandb]", "tracker.wandb.mode=online"])
    assert [problem.where for problem in problems(cell)] == ["tracker.wandb.mode"]
