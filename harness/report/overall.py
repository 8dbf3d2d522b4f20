"""The aggregates over tasks as a table of text and a figure; both are absent where there is one task."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.report.aggregates import MIN_TASKS, Aggregates, Ranged, aggregates, profile, scores_of
from harness.report.drawing import HALF, MAX_CURVES, Figure, draw, legend, legend_height, look
from harness.report.frames import Results
from harness.report.numbers import counted
from harness.report.table import Table, decided_on

TITLE = "Over all tasks"
THRESHOLDS = 101


def over_tasks(table: Table, results: Results) -> Aggregates | None:
    """The aggregates of the qualities that this table decides on."""
    metrics = decided_on(table)
    return aggregates(results, metrics) if metrics else None


def as_text(
    found: Aggregates, table: Table, results: Results
) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows (best mean win rate first) and notes."""
    pooled, compared = bool(found.shares), any(row.improvement for row in found.rows)
    heads = [*map(table.layout.text, results.factors), "mean win rate"]
    heads += ["better than the baseline"] * compared + ["interquartile mean"] * pooled
    rows = [
        [
            *map(table.layout.text, row.levels),
            f"{row.win_rate:.3f}",
            *([ranged_text(row.improvement)] * compared),
            *([ranged_text(row.iqm)] * pooled),
        ]
        for row in sorted(found.rows, key=lambda row: -row.win_rate)
    ]
    seeds = len(found.seeds)
    notes = [
        f"Over {len(found.tasks)} tasks ({', '.join(found.tasks)}) and {counted(seeds, 'seed')}.",
        "Mean win rate: the share of the other configurations that the mean over seeds beats, averaged over "
        "tasks; it depends on who else is in the table.",
    ]
    if compared:
        notes.append(
            "Better than the baseline: the probability that a run beats one of the baseline on a task drawn "
            "at random, a tie counting half."
        )
    if pooled:
        notes.append(f"Interquartile mean: of the middle half of all scores of {', '.join(found.shares)}.")
    if seeds > 1:
        notes.append(
            "Intervals (95 %) by a bootstrap of runs within tasks; with few seeds they are too narrow. "
            "Verdicts stand in the table and the claims, not here."
        )
    if found.left_out:
        notes.append(f"Left out, as a task or seed lacks a number: {'; '.join(found.left_out)}.")
    return heads, rows, notes


def ranged_text(found: Ranged | None) -> str:
    """`0.61 (0.52 to 0.70)`; a dash where there is nothing to say."""
    if found is None:
        return "-"
    text = f"{found.value:.3f}"
    return (
        text if found.low is None or found.high is None else f"{text} ({found.low:.3f} to {found.high:.3f})"
    )


def profiles(found: Aggregates | None, results: Results) -> Figure | None:
    """Performance profiles: the share of runs and tasks whose score exceeds each threshold."""
    if found is None or len(found.shares) < MIN_TASKS or not 1 < len(found.rows) <= MAX_CURVES:
        return None
    at_X = np.linspace(0, 1, THRESHOLDS)
    curves = [(row.levels, profile(scores_of(results, row.levels, found.shares), at_X)) for row in found.rows]

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        keys = {}
        for place, (levels, share_X) in enumerate(curves):
            style = look(place)
            (keys[results.name_of(levels)],) = axes.step(
                at_X, share_X, where="post", **style, ms=4, lw=1.3, markevery=THRESHOLDS // 6
            )
        axes.set_xlabel("score")
        axes.set_ylabel("share of runs above it")
        axes.set_ylim(-0.02, 1.02)
        legend(canvas, keys)

    return draw(
        "profiles",
        "Performance profiles.",
        f"Over {len(found.shares)} tasks and {len(found.seeds)} seeds; the higher curve is the better one.",
        size=(HALF, 2.8 + legend_height([results.name_of(levels) for levels, _ in curves], HALF)),
        paint=paint,
    )
