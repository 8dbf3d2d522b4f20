"""What an evaluation measured: checked once, where the stage that wrote it ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

METRICS = "metrics.json"
"""File of an evaluation's artifact: a list of {task, metric, value, ...}, a `Metric` each."""


def settle_metrics(file: Path, *, by: str) -> None:
    """Write metrics as a record can hold them: an error that is no number is not known, and null.

    Raises: HarnessError naming who measured, and the metric whose value is no number, which is this cell's
        outcome, or what is no metric
    """
    if not file.is_file():
        return
    metrics = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(metrics, list):
        raise HarnessError(f"{by} wrote a {METRICS} that holds a {type(metrics).__name__}, no list")
    file.write_text(json.dumps([_settled(metric, by) for metric in metrics], indent=1), encoding="utf-8")


def _settled(metric: Any, by: str) -> dict[str, Any]:
    if not isinstance(metric, dict) or not all(isinstance(metric.get(k), str) for k in ("task", "metric")):
        raise HarnessError(f"{by} wrote {metric!r} to {METRICS}; a metric has a task, a metric and a value")
    value = metric.get("value")
    if not _is_finite(value):
        raise HarnessError(f"{by} measured {metric['task']}.{metric['metric']}={value}, which is no number")
    known = _is_finite(metric.get("stderr"))
    return metric if known else {**metric, "stderr": None}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
