"""Figures of curves: losses against what was spent, quality by position or length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.report import views
from harness.report.drawing import (
    HALF,
    MAX_CURVES,
    WIDE,
    Figure,
    draw,
    legend,
    legend_height,
    logarithmic,
    look,
    panels,
)
from harness.report.frames import Results

AGAINST = ("tokens", "flops", "seconds")


UNITS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds", "steps": "steps"}


def loss_curves(results: Results, stage: str) -> Figure | None:
    """Losses of a stage at equal tokens, FLOPs and time, as far as it measured them."""
    found = [(a, views.loss_curves(results, stage, against=a)) for a in AGAINST]
    found = [(a, curves) for a, curves in found if curves] or [("steps", views.loss_curves(results, stage))]
    if not found[0][1]:
        return None
    if len(found[0][1]) == 1:
        found = found[:1]
    from matplotlib.ticker import EngFormatter

    order = list(dict.fromkeys(c.levels for _, curves in found for c in curves))
    texts = [", ".join(levels) for levels in order] if 1 < len(order) <= MAX_CURVES else []

    def paint(canvas: Any) -> None:
        keys: dict[str, Any] = {}
        for axes, (against, curves) in zip(panels(canvas, len(found), 3), found, strict=True):
            for curve in curves:
                style = look(order.index(curve.levels))
                every = max(1, len(curve.x) // 6)
                (drawn,) = axes.plot(curve.x, curve.y, **style, lw=1.3, ms=4, markevery=every)
                keys[", ".join(curve.levels)] = drawn
                if (curve.high > curve.low).any():
                    axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.15, lw=0)
            axes.set_xlabel(UNITS[against])
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        canvas.axes[0].set_ylabel("loss (nats)")
        if texts:
            legend(canvas, keys)

    return draw(
        f"loss_{stage}",
        f"Loss of {stage}.",
        "Mean over seeds with their range, against what the stage measured: one abscissa, one budget.",
        size=((width := WIDE if len(found) > 1 else HALF), 2.7 + legend_height(texts, width)),
        paint=paint,
        wide=len(found) > 1,
    )


def sample_curves(results: Results, column: str) -> Iterator[Figure]:
    """Quality by position in the context, or by its length, for each task whose samples carry that column."""
    for name in dict.fromkeys(n for r in results.all_records() for n in r.sample_names):
        # A metric may be stated by group alone: `loss.length=64`.
        stated = [m.removeprefix(f"{name}.") for m in results.metrics if m.startswith(f"{name}.")]
        metrics = dict.fromkeys(m.partition(".")[0] for m in stated)
        if column in metrics:  # the length of what was generated is no length of a context
            continue
        found = (record.samples(name) for record in results.all_records())
        if not any(items is not None and column in items for items in found):
            continue
        for metric in metrics:
            if curves := views.by_column(results, name, column, metric):
                yield draw_sample_curves(results, name, column, metric, curves)
                break


def draw_sample_curves(
    results: Results, name: str, column: str, metric: str, curves: Sequence[views.Curve]
) -> Figure:
    """One line a configuration."""
    names = [results.name_of(curve.levels) for curve in curves]
    texts = names if 1 < len(curves) <= MAX_CURVES else []

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        keys: dict[str, Any] = {}
        for i, (curve, named) in enumerate(zip(curves, names, strict=True)):
            style = look(i)
            (drawn,) = axes.plot(curve.x, curve.y, **style, ms=4, lw=1.3)
            keys[named] = drawn
            axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.15, lw=0)
        axes.set_xlabel(f"{column} (tokens)")
        axes.set_ylabel(metric.replace("_", " "))
        if np.ptp(curves[0].x) > 0 and curves[0].x.min() > 0 and curves[0].x.max() / curves[0].x.min() >= 8:
            logarithmic(axes, base=2)
        axes.grid(axis="y")
        if texts:
            legend(canvas, keys)

    what = "Loss by position" if column == "position" else "Quality against context length"
    return draw(
        f"by_{column}_{name.rpartition('.')[2]}",
        f"{what}, {name.rpartition('.')[2].replace('_', ' ')}.",
        f"{name}: mean over items and seeds, range over seeds.",
        size=(HALF, 2.8 + legend_height(texts, HALF)),
        paint=paint,
    )
