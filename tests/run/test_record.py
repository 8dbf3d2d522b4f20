"""What a record takes over from evaluations."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.run.record import _metrics


def test_a_metric_that_is_no_number_is_null(tmp_path: Path) -> None:
    metric = {"task": "win_rate", "metric": "win_rate", "value": 0.5, "stderr": float("nan"), "n": 64}
    (tmp_path / "metrics.json").write_text(json.dumps([metric, {**metric, "value": float("inf")}]))
    artifact: Any = SimpleNamespace(path=tmp_path, kind="evaluation", meta={"part": "win_rate.win_rate"})
    found = _metrics({"key": artifact})
    assert [(m["evaluator"], m["value"], m["stderr"]) for m in found] == [
        ("win_rate", 0.5, None),
        ("win_rate", None, None),
    ]
    json.dumps(found, allow_nan=False)
