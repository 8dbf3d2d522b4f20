"""What is said of running stages, and what of it an artifact keeps."""

from pathlib import Path

from harness.run.execute import Steps, read_steps
from harness.run.progress import describe_step


def test_documents_are_told_with_their_bytes_and_the_time_left() -> None:
    facts = {"documents": 12_345.0, "bytes": 6.78e6, "progress": 0.25}
    assert describe_step(12_345, facts, 10.0) == "12,345 documents, 6.8 MB, 25%, 30 s left"
    resumed = {**facts, "seconds_left": 90.0}
    assert describe_step(12_345, resumed, 10.0).endswith("25%, 90 s left"), (
        "what came before a kill is no pace"
    )
    assert describe_step(7, {"documents": 7.0, "bytes": 0.0}, 1.0) == "7 documents, 0.0 MB"
    assert describe_step(7, {"loss": 2.5, "progress": 0.5}, 3.0) == "step 7, loss 2.500, 50%, 3 s left"


def test_an_artifact_keeps_the_steps_of_a_training_and_no_progress(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps.jsonl")
    steps.add(100, {"documents": 100.0, "bytes": 5.0})
    steps.finish(tmp_path / "kept.jsonl")
    assert not (tmp_path / "kept.jsonl").exists()
    steps.add(1, {"loss": 2.0})
    steps.finish(tmp_path / "kept.jsonl")
    assert read_steps(tmp_path / "kept.jsonl") == [(1, {"loss": 2.0})]
