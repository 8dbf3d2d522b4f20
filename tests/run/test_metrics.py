"""What any evaluation measured is settled once, where its stage ends."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.run.execute import Task
from harness.run.metrics import METRICS
from harness.run.record import _metrics
from harness.store import Store

FINE = {"task": "t", "metric": "m", "value": 0.5, "stderr": 0.1, "n": 64}


def evaluated(metrics: Any, store: Store) -> list[dict[str, Any]]:
    """The metrics of a record whose stage, a third party's, wrote these."""

    class Weigh:
        def run(self, work: Any) -> dict[str, Any]:
            (work.out / METRICS).write_text(json.dumps(metrics))
            return {}

    node: Any = SimpleNamespace(
        key="ab" * 32,
        stage="weigh",
        title="weigh scale.t",
        kind="evaluation",
        part="scale.t",
        seed=0,
        threads=1,
        material={"files": {}},
        inputs={},
        choices={},
        config=None,
        cell=SimpleNamespace(model_path=lambda: None, spec=lambda: None),
        maker=Weigh,
        axes=(),
    )
    task = Task(node=node, store=store.root, externals={}, device="cpu")
    object.__setattr__(task, "_check_files", lambda store: None)
    task(lambda *told: None)
    plan: Any = SimpleNamespace(graph=SimpleNamespace(nodes={node.key: node}))
    return _metrics(plan, {node.key: store.get(node.key)})


def test_an_error_that_is_no_number_is_null_in_a_record(tmp_path: Path) -> None:
    found = evaluated([FINE, {**FINE, "stderr": float("nan")}], Store(tmp_path))
    assert found == [{"evaluator": "scale", **FINE}, {"evaluator": "scale", **FINE, "stderr": None}]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([FINE, {**FINE, "value": float("inf")}], "weigh scale.t measured t.m=inf, which is no number"),
        ([{**FINE, "value": None}], "measured t.m=None, which is no number"),
        ([{"metric": "m", "value": 1}], "a metric has a task, a metric and a value"),
        ({"t": 1}, "holds a dict, no list"),
    ],
)
def test_what_is_no_metric_fails_its_own_cell_and_leaves_no_artifact(
    metrics: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=said):
        evaluated(metrics, Store(tmp_path))
    assert Store(tmp_path).find("ab" * 32) is None
