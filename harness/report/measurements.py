"""Records as one pandas frame: a row a cell and metric, with factors, facts and directions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report.arrange import arrange
from harness.report.frames import column_of, facts
from harness.report.records import read
from harness.store.records import sweep_name

if TYPE_CHECKING:
    import pandas as pd


def load(
    store: object, experiment: str, *, cells: Iterable[str] | None = None, beside: Sequence[object] = ()
) -> pd.DataFrame:
    """One row a cell and metric: factors, seed, outcome, value, unit, direction, error, items, and all facts.

    `cells` keeps only those ids of the store; records that lie `beside` it join. Facts are columns
    `<stage>.<fact>`. Factors are ordered categories in the experiment's order. A cell without numbers has one
    row that says why. A factor called like a column gets `factor.` before it, a fact called like a factor
    (`pretrain.batch_size`) `fact.`.
    Raises: DataError if there are no records
    """
    import pandas as pd

    found = read(store, experiment, cells=cells, beside=beside)
    keys = ("evaluator", "task", "metric", "value", "unit", "stderr", "n", "higher_is_better")
    rows = []
    for record in found:
        base: dict[str, Any] = {
            "sweep": str(record.data.get("sweep", "")),
            "cell": record.cell,
            "seed": record.seed,
            "outcome": record.status,
            "reason": "" if record.status == "ok" else record.reason,
        }
        measured = [{key: m.get(key) for key in keys} for m in record.data["metrics"]]
        empty = dict.fromkeys(keys, "") | {
            "value": np.nan,
            "stderr": np.nan,
            "n": 0,
            "higher_is_better": None,
        }
        levels = {column_of(f, COLUMNS): level for f, level in record.levels.items()}
        measured_facts = {f"fact.{name}" if name in levels else name: v for name, v in facts(record).items()}
        rows += [{**levels, **base, **m, **measured_facts} for m in measured or [empty]]
    frame = pd.DataFrame(rows).astype({"value": float, "stderr": float})
    order = arrange(found).factors
    for factor, levels_of_factor in order.items():
        column = column_of(factor, COLUMNS)
        if column in frame:
            frame[column] = pd.Categorical(frame[column], categories=levels_of_factor, ordered=True)
    frame.attrs["sweep"] = sweep_name(experiment)
    return frame


COLUMNS = (
    *("sweep", "cell", "seed", "outcome", "reason", "evaluator", "task", "metric", "value", "unit", "stderr"),
    *("n", "higher_is_better"),
)
"""Columns of the frame beside the factors."""
