"""What a layout leaves open, filled in from the records: factors, metrics, groups."""

from __future__ import annotations

import dataclasses

from harness.errors import UnknownNameError
from harness.report.frames import Results
from harness.report.layout import Layout, MetricColumn
from harness.report.quantities import last_name
from harness.report.records import label


def default_metrics(results: Results) -> tuple[MetricColumn, ...]:
    """Every metric; where that is many, what the experiment decides on and what a reader asks first.

    Numbers of groups of items (`acc.length=64`), which figures show, are not among these.
    """
    names = [name for name, m in results.metrics.items() if m.measured]
    if len(names) > MANY:
        decided = results.declared(results.all_records()[-1].experiment.get("primary") or ())
        names = [name for name in names if name in decided or asked_first(name)]
    return tuple(MetricColumn(metric=name) for name in names)


def asked_first(metric: str) -> bool:
    """Whether a metric stands in a table of few columns."""
    kept = HEADLINES.get(metric.partition(".")[0])
    return "=" not in metric and (kept is None or last_name(metric) in kept)


MANY = 8
HEADLINES = {"efficiency": ("weights_in_memory", "decode"), "perplexity": ("bits_per_byte",)}
"""Evaluator -> its metrics in a table that nobody laid out, once there are more than MANY."""


def fit(layout: Layout, results: Results) -> Layout:
    """The layout with what it leaves open filled in from the records.

    Without rows and columns, the last of several factors goes on top if its columns stay readable.
    Raises: UnknownNameError for a factor or metric that the records do not have
    """
    factors = list(results.factors)
    rows, columns = list(layout.rows), list(layout.columns)
    for factor in (*rows, *columns, *layout.where, *([layout.group] if layout.group else [])):
        if factor not in factors:
            raise UnknownNameError(
                what=f"factor of experiment '{results.name}' (asked for by table '{layout.name}')",
                name=factor,
                known=factors,
            )
    for factor, level in layout.baseline.items():
        results.configurations({factor: label(level)})  # raises for an unknown one
    if not rows and not columns:
        on_top = len(factors) > 1 and len(results.factors[factors[-1]]) <= 4
        rows, columns = (factors[:-1], factors[-1:]) if on_top else (factors, [])
    metrics = layout.metrics or default_metrics(results)
    kept = []
    for column in metrics:
        try:
            results.resolve(column.metric)
        except UnknownNameError:
            if not column.optional:
                raise
        else:
            kept.append(column)
    return dataclasses.replace(
        layout,
        rows=tuple(rows),
        columns=tuple(columns),
        metrics=tuple(kept),
        group=layout.group or (rows[0] if len(rows) > 1 else ""),
    )
