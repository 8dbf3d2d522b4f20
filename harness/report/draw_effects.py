"""Figures of what levels change and what they cost: effects, interactions, fronts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import views
from harness.report.contrasts import Comparison
from harness.report.drawing import (
    BAD,
    GOOD,
    HALF,
    INK,
    LONGEST_TITLE,
    MAX_CURVES,
    SOFT,
    WIDE,
    Figure,
    draw,
    legend,
    legend_height,
    logarithmic,
    look,
    panels,
    short,
    title,
)
from harness.report.frames import Results
from harness.report.quantities import is_cost, last_name
from harness.report.table import Column, Table, heading, metric_columns
from harness.report.verdicts import verdict

Row = tuple[str, str, str]
"""Factor, level, and what is given: a row of all panels, so that one column of names is true of each."""


def row_of(effect: views.Effect) -> Row:
    return effect.factor, effect.level, effect.given


Panel = tuple[Column, Sequence[views.Effect]]


def rows_of(found: Sequence[Panel], *, limit: int | None = None) -> list[Row]:
    """The rows of all panels, in which a metric without an effect leaves its row empty.

    Of more than `limit` those in which some metric's difference stands out most from its interval
    """
    fullest = sorted((effects for _, effects in found), key=len, reverse=True)
    rows = list(dict.fromkeys(row_of(effect) for effects in fullest for effect in effects))
    if limit is None or len(rows) <= limit:
        return rows
    clear: dict[Row, float] = {}
    for effect in itertools.chain(*fullest):
        clear[row_of(effect)] = max(clear.get(row_of(effect), 0.0), clarity(effect.comparison))
    kept = sorted(rows, key=lambda row: -clear[row])[:limit]
    return [row for row in rows if row in kept]


def clarity(comparison: Comparison) -> float:
    """A difference in units of half its interval's width; 0 where it has none."""
    if comparison.low is None or comparison.high is None or comparison.difference == 0:
        return 0.0
    half = (comparison.high - comparison.low) / 2
    return abs(comparison.difference) / half if half > 0 else math.inf


def forest(axes: Any, effects: Sequence[views.Effect], labels: Mapping[Row, str], column: Column) -> None:
    """Intervals of effects in the column's unit; a sure one has the colour of its direction."""
    scale = column.spec.scale
    places = {row: y for y, row in enumerate(labels)}
    for effect in effects:
        c, y = effect.comparison, places.get(row_of(effect))
        if y is None:
            continue
        sure = verdict(c, column) in ("better", "worse")
        good = verdict(c, column) == "better"
        colour = (GOOD if good else BAD) if sure else SOFT
        if c.low is not None and c.high is not None:
            axes.plot([c.low * scale, c.high * scale], [y, y], color=colour, lw=1.8, solid_capstyle="round")
        filled = colour if c.about == "methods" else "none"
        axes.plot(
            [c.difference * scale],
            [y],
            "o" if not sure else "^" if c.difference > 0 else "v",
            ms=4.5,
            mec=colour,
            mfc=filled,
            mew=1.3,
        )
    if not any(x for line in axes.lines for x in line.get_xdata()):
        axes.set_xlim(-1, 1)  # else matplotlib shows what rounding leaves of the line at 0, 1e-17
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(labels)), map(short, labels.values()))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    unit = "points" if column.unit == "%" else column.unit
    if unit:
        axes.set_xlabel(short(unit, LONGEST_TITLE), fontsize=8)


MAX_METRICS, PANELS, MAX_ROWS = 6, 3, 14
"""Metrics of marginal effects; panels, and rows of interactions, that a page holds."""


def of_all(shown: int, there: int, what: str) -> str:
    """What a figure leaves out, in words; nothing where it shows all."""
    return f" The first {shown} of {there} {what}." if shown < there else ""


EFFECT_CAPTION = (
    "Difference to each factor's baseline, averaged over the other factors, with simultaneous 95 % "
    "intervals: green better, orange worse, grey not distinguishable from none or not decided on. Filled "
    "points rest on per-seed differences, hollow ones on items of these checkpoints. A comparison that the "
    "table or a claim makes has their interval."
)


def marginal_effects(table: Table, results: Results) -> Figure | None:
    """The effect of each level on each metric."""
    columns = metric_columns(table)
    found = [(c, views.marginal_effects(table.decisions, c.info.name)) for c in columns[:MAX_METRICS]]
    found = [(c, effects) for c, effects in found if effects]
    if not found:
        return None
    rows = {row: f"{results.text(row[0])}: {results.text(row[1])}" for row in rows_of(found)}
    per_row = min(3, len(found))

    def paint(canvas: Any) -> None:
        for i, (axes, (column, effects)) in enumerate(
            zip(panels(canvas, len(found), per_row), found, strict=True)
        ):
            forest(axes, effects, rows, column)
            aside = "higher" if column.higher_is_better else "lower"
            title(axes, heading(column), f"{aside} is better")
            if i % per_row:
                axes.set_yticklabels([])

    height = (0.55 + 0.24 * len(rows)) * -(-len(found) // per_row)
    return draw(
        "marginal_effects",
        "Marginal effects.",
        EFFECT_CAPTION + of_all(MAX_METRICS, len(columns), "metrics"),
        size=(WIDE if per_row > 1 else HALF, max(1.3, height)),
        paint=paint,
        wide=per_row > 1,
    )


def interactions(table: Table, results: Results) -> Figure | None:
    """Whether effects depend on each other, for the metrics that are no cost."""
    columns = [c for c in metric_columns(table) if not is_cost(c.info.name)]
    found = [(c, views.interactions(table.decisions, c.info.name)) for c in columns[:PANELS]]
    found = [(c, effects) for c, effects in found if effects]
    if not found:
        return None
    every = rows_of(found)
    rows = {row: f"{results.text(row[1])} | {row[2]}" for row in rows_of(found, limit=MAX_ROWS)}

    def paint(canvas: Any) -> None:
        for i, (axes, (column, effects)) in enumerate(zip(panels(canvas, len(found), 3), found, strict=True)):
            forest(axes, effects, rows, column)
            axes.set_title(short(heading(column), LONGEST_TITLE))
            if i:
                axes.set_yticklabels([])

    return draw(
        "interactions",
        "Interactions.",
        "How much a level's effect changes under another factor's level (difference of differences), with "
        "simultaneous 95 % intervals; an interval around 0 does not tell it from none."
        + of_all(PANELS, len(columns), "metrics")
        + (f" Of {len(every)} changes those that stand out most." if len(rows) < len(every) else ""),
        size=(WIDE, 0.7 + 0.24 * len(rows)),
        paint=paint,
        wide=True,
    )


def pareto_fronts(table: Table, results: Results) -> Figure | None:
    """The first quality metric against each cost."""
    columns = metric_columns(table)[:MAX_METRICS]
    quality = next((c for c in columns if not is_cost(c.info.name)), None)
    costs = {
        c.info.name: heading(c) + (f" ({c.unit})" if c.unit else "") for c in columns if is_cost(c.info.name)
    }
    scales = {c.info.name: c.spec.scale for c in columns}
    for name in results.metrics:
        if last_name(name) == "trainable_parameters":
            costs.setdefault(name, "trainable parameters")
    if quality is None or not costs:
        return None
    found = [
        (
            text,
            [
                p.scaled(scales.get(name, 1.0), quality.spec.scale)
                for p in views.pareto(results, cost=name, quality=quality.info.name)
            ],
        )
        for name, text in costs.items()
    ]
    found = [(text, points) for text, points in found if len({p.x for p in points}) > 1][:3]
    if not found:
        return None
    values = list(results.factors.values())
    factor = max((i for i, levels in enumerate(values) if len(levels) > 1), default=len(values) - 1)
    levels = values[factor]
    named = len(levels) > MAX_CURVES  # more levels than looks: names at the points of the front instead
    texts = [] if named or len(levels) < 2 else [table.layout.text(level) for level in levels]
    hover = {
        f"point-{panel}-{i}": f"{results.name_of(p.levels)}: {price} {p.x:.4g}, {heading(quality)} {p.y:.4g}"
        for panel, (price, points) in enumerate(found)
        for i, p in enumerate(points)
    }

    def paint(canvas: Any) -> None:
        keys: dict[str, Any] = {}
        for panel, (axes, (price, points)) in enumerate(
            zip(panels(canvas, len(found), 3), found, strict=True)
        ):
            front = sorted((p for p in points if p.on_front), key=lambda p: (p.x, p.y))
            axes.plot([p.x for p in front], [p.y for p in front], color=SOFT, lw=1, zorder=1)
            styles = [
                {"color": INK, "marker": "o"} if named else look(levels.index(p.levels[factor]))
                for p in points
            ]
            error_bars(axes, points, [style["color"] for style in styles])
            for i, (p, style) in enumerate(zip(points, styles, strict=True)):
                style["linestyle"] = "none"
                face = style["color"] if p.on_front else "none"
                (drawn,) = axes.plot(p.x, p.y, **style, ms=6, mfc=face, mew=1.4, zorder=3)
                drawn.set_gid(f"point-{panel}-{i}")
                if named and p.on_front:
                    text = table.layout.text(p.levels[factor])
                    axes.annotate(short(text), (p.x, p.y), (4, 4), textcoords="offset points", fontsize=7)
            axes.set_xlabel(short(price, LONGEST_TITLE))
            axes.grid()
            axes.set_axisbelow(True)
            if min(p.x for p in points) > 0 and max(p.x for p in points) / min(p.x for p in points) > 20:
                logarithmic(axes)
        for i, text in enumerate(texts):
            style = look(i) | {"linestyle": "none"}
            keys[text] = canvas.axes[0].plot([], [], **style)[0]
        canvas.axes[0].set_ylabel(short(heading(quality) + (f" ({quality.unit})" if quality.unit else "")))
        if keys:
            legend(canvas, keys, title=table.layout.text(list(results.factors)[factor]))

    direction = "higher" if quality.higher_is_better else "lower"
    return draw(
        "pareto",
        "What quality costs.",
        f"{heading(quality)} ({direction} is better) against its price, with 95 % intervals; filled points "
        "are beaten by no other in both. The pointer names a point.",
        size=((width := WIDE if len(found) > 1 else HALF), 2.7 + legend_height(texts, width)),
        paint=paint,
        wide=len(found) > 1,
        hover=hover,
    )


def error_bars(axes: Any, points: Sequence[views.Point], colours: Sequence[str]) -> None:
    """The intervals of points in both metrics."""
    from matplotlib.collections import LineCollection

    flat = [
        ([(p.x_range[0], p.y), (p.x_range[1], p.y)], c)
        for p, c in zip(points, colours, strict=True)
        if p.x_range
    ]
    tall = [
        ([(p.x, p.y_range[0]), (p.x, p.y_range[1])], c)
        for p, c in zip(points, colours, strict=True)
        if p.y_range
    ]
    lines, own = [line for line, _ in flat + tall], [colour for _, colour in flat + tall]
    axes.add_collection(LineCollection(lines, colors=own, linewidths=0.9, alpha=0.55, zorder=2))
    axes.autoscale_view()
