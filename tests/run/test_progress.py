"""What is said of running stages, and what of it an artifact keeps."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.run import progress
from harness.run.execute import Steps, read_steps
from harness.run.progress import Lines, describe_step
from harness.stages import _progress
from harness.stages._progress import Requests


def test_documents_are_told_with_their_bytes_and_the_time_left() -> None:
    facts = {"documents": 12_345.0, "bytes": 6.78e6, "progress": 0.25}
    assert describe_step(12_345, facts, 10.0) == "12,345 documents, 6.8 MB, 25%, 30 s left"
    resumed = {**facts, "seconds_left": 90.0}
    assert describe_step(12_345, resumed, 10.0).endswith("25%, 90 s left"), (
        "what came before a kill is no pace"
    )
    assert describe_step(7, {"documents": 7.0, "bytes": 0.0}, 1.0) == "7 documents, 0.0 MB"
    asked = {"requests": 1_200.0, "progress": 0.25, "seconds_left": 90.0}
    assert describe_step(300, asked, 10.0) == "300 of 1,200 requests, 25%, 90 s left"
    assert describe_step(7, {"loss": 2.5, "progress": 0.5}, 3.0) == "step 7, loss 2.500, 50%, 3 s left"


def test_an_artifact_keeps_the_steps_of_a_training_and_no_progress(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps.jsonl")
    steps.add(100, {"documents": 100.0, "bytes": 5.0})
    steps.finish(tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()
    steps.add(1, {"loss": 2.0})
    steps.finish(tmp_path / "kept.jsonl")
    assert read_steps(tmp_path / "kept.jsonl") == [(1, {"loss": 2.0})]


def test_a_stage_that_runs_on_is_told_less_and_less_often_until_another_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    plan: Any = SimpleNamespace(cells=(), graph=SimpleNamespace(store=SimpleNamespace(root=tmp_path)))
    monkeypatch.setattr(progress, "stages_of", lambda plan: {"a": {"levels": ""}, "b": {"levels": ""}})
    monkeypatch.setattr(Lines, "_progress", lambda self: "so far")
    stream = io.StringIO()
    view = Lines(plan, stream=stream)
    first, second = (SimpleNamespace(key=key, title=key) for key in "ab")

    def told(until: float) -> list[float]:
        stream.seek(0)
        stream.truncate()
        while now[0] < until:
            now[0] += 1
            view.tick(waiting=0, elsewhere=0)
        return [float(line[1:8]) for line in stream.getvalue().splitlines() if "so far" in line]

    view.started(first)  # type: ignore[arg-type]
    assert told(250) == [10, 30, 70, 130, 190, 250]
    view.started(second)  # type: ignore[arg-type]
    assert told(300) == [260, 280]


def test_requests_of_several_rounds_are_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    told: list[tuple[int, dict[str, float]]] = []
    work: Any = SimpleNamespace(on_progress=lambda done, facts: told.append((done, facts)))
    requests = Requests(work)
    for done, total in ((10, 40), (20, 40), (40, 40), (5, 20), (10, 20)):
        now[0] += 2
        requests(done, total)
    assert told == [
        (10, {"requests": 40, "progress": 10 / 40, "seconds_left": 6}),
        (20, {"requests": 40, "progress": 20 / 40, "seconds_left": 4}),
        (45, {"requests": 60, "progress": 45 / 60, "seconds_left": 6}),
        (50, {"requests": 60, "progress": 50 / 60, "seconds_left": 4}),
    ]
