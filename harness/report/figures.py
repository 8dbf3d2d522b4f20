"""Figures: SVG files with live text, whose ink follows the page's light or dark; PNG and PDF where asked."""

from __future__ import annotations

from harness.report.draw_curves import loss_curves, sample_curves
from harness.report.draw_effects import interactions, marginal_effects, pareto_fronts
from harness.report.draw_ranks import critical_difference, rating_figure
from harness.report.drawing import (
    Figure,
)
from harness.report.frames import Results
from harness.report.runs import training
from harness.report.table import Table


def figures(table: Table, results: Results) -> list[Figure]:
    """Every view that these records allow."""
    made: list[Figure | None] = [
        marginal_effects(table, results),
        interactions(table, results),
        pareto_fronts(table, results),
        *(loss_curves(results, stage) for stage in trained_stages(results)),
        *(figure for column in ("position", "length") for figure in sample_curves(results, column)),
        rating_figure(table, results),
        critical_difference(table, results),
    ]
    return [figure for figure in made if figure is not None]


def trained_stages(results: Results) -> list[str]:
    """Stages that took steps in some record, in the order in which they ran."""
    return list(dict.fromkeys(stage for record in results.all_records() for stage in training(record.data)))
