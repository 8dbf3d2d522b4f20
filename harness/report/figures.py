"""Figures: SVG files with live text, whose ink follows the page's light or dark; PNG and PDF where asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.report import ratings, scaling, views
from harness.report.drawing import (
    BAD,
    GOOD,
    HALF,
    INK,
    MAX_CURVES,
    PALETTE,
    SOFT,
    WIDE,
    Figure,
    draw,
    legend,
    legend_height,
    look,
    panels,
    title,
)
from harness.report.frames import Results, name_of
from harness.report.quantities import is_cost
from harness.report.runs import training
from harness.report.table import Column, Table, decided_on, heading, verdict

AGAINST = ("tokens", "flops", "seconds")
UNITS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds", "steps": "steps"}
MAX_METRICS = 6


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


def metric_columns(table: Table) -> list[Column]:
    """One column for each metric of the table that has a better direction."""
    found = {c.info.name: c for c in reversed(table.columns) if c.higher_is_better is not None}
    return list(reversed(found.values()))[:MAX_METRICS]


def forest(axes: Any, effects: Sequence[views.Effect], labels: Sequence[str], column: Column) -> None:
    """Intervals of effects in the column's unit; a sure one has the colour of its direction."""
    scale = column.spec.scale
    for y, effect in enumerate(effects):
        c = effect.comparison
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
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    unit = "points" if column.unit == "%" else column.unit
    if unit:
        axes.set_xlabel(unit, fontsize=8)


EFFECT_CAPTION = (
    "Difference to each factor's baseline, averaged over the other factors, with simultaneous 95 % "
    "intervals: green better, orange worse, grey not distinguishable from none or not decided on. Filled "
    "points rest on per-seed differences, hollow ones on items of these checkpoints. A comparison that the "
    "table or a claim makes has their interval."
)


def marginal_effects(table: Table, results: Results) -> Figure | None:
    """The effect of each level on each metric."""
    found = [(c, views.marginal_effects(table.decisions, c.info.name)) for c in metric_columns(table)]
    found = [(c, effects) for c, effects in found if effects]
    if not found:
        return None
    rows = max(len(effects) for _, effects in found)
    per_row = min(3, len(found))

    def paint(canvas: Any) -> None:
        for i, (axes, (column, effects)) in enumerate(
            zip(panels(canvas, len(found), per_row), found, strict=True)
        ):
            labels = [f"{table.layout.text(e.factor)}: {table.layout.text(e.level)}" for e in effects]
            forest(axes, effects, labels, column)
            aside = "higher" if column.higher_is_better else "lower"
            title(axes, heading(column), f"{aside} is better")
            if i % per_row:
                axes.set_yticklabels([])

    height = (0.55 + 0.24 * rows) * -(-len(found) // per_row)
    return draw(
        "marginal_effects",
        "Marginal effects.",
        EFFECT_CAPTION,
        size=(WIDE if per_row > 1 else HALF, max(1.3, height)),
        paint=paint,
        wide=per_row > 1,
    )


def interactions(table: Table, results: Results) -> Figure | None:
    """Whether effects depend on each other, for the metrics that are no cost."""
    columns = [c for c in metric_columns(table) if not is_cost(c.info.name)][:3]
    found = [(c, views.interactions(table.decisions, c.info.name)[:14]) for c in columns]
    found = [(c, effects) for c, effects in found if effects]
    if not found:
        return None

    def paint(canvas: Any) -> None:
        for i, (axes, (column, effects)) in enumerate(zip(panels(canvas, len(found), 3), found, strict=True)):
            forest(axes, effects, [f"{e.level} | {e.given}" for e in effects], column)
            axes.set_title(heading(column))
            if i:
                axes.set_yticklabels([])

    return draw(
        "interactions",
        "Interactions.",
        "How much a level's effect changes under another factor's level (difference of differences), with "
        "simultaneous 95 % intervals; an interval around 0 does not tell it from none.",
        size=(WIDE, 0.7 + 0.24 * max(len(e) for _, e in found)),
        paint=paint,
        wide=True,
    )


def pareto_fronts(table: Table, results: Results) -> Figure | None:
    """The first quality metric against each cost."""
    columns = metric_columns(table)
    quality = next((c for c in columns if not is_cost(c.info.name)), None)
    costs = {
        c.info.name: heading(c) + (f" ({c.unit})" if c.unit else "") for c in columns if is_cost(c.info.name)
    }
    scales = {c.info.name: c.spec.scale for c in columns}
    for name in results.metrics:
        if name.rpartition(".")[2] == "trainable_parameters":
            costs.setdefault(name, name.rpartition(".")[2].replace("_", " "))
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
    factor = len(results.factors) - 1
    levels = list(results.factors.values())[factor]
    named = len(levels) > MAX_CURVES  # more levels than looks: names at the points of the front instead
    texts = [] if named or len(levels) < 2 else [table.layout.text(level) for level in levels]
    hover = {
        f"point-{panel}-{i}": f"{name_of(tuple(map(table.layout.text, p.levels)))}: {price} {p.x:.4g}, "
        f"{heading(quality)} {p.y:.4g}"
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
                    axes.annotate(text, (p.x, p.y), (4, 4), textcoords="offset points", fontsize=7)
            axes.set_xlabel(price)
            axes.grid()
            axes.set_axisbelow(True)
            if min(p.x for p in points) > 0 and max(p.x for p in points) / min(p.x for p in points) > 20:
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter("")
        for i, text in enumerate(texts):
            style = look(i) | {"linestyle": "none"}
            keys[text] = canvas.axes[0].plot([], [], **style)[0]
        canvas.axes[0].set_ylabel(heading(quality) + (f" ({quality.unit})" if quality.unit else ""))
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
        for metric in metrics:
            if curves := views.by_column(results, name, column, metric):
                yield draw_sample_curves(name, column, metric, curves)
                break


def draw_sample_curves(name: str, column: str, metric: str, curves: Sequence[views.Curve]) -> Figure:
    """One line a configuration."""
    texts = [name_of(curve.levels) for curve in curves] if 1 < len(curves) <= MAX_CURVES else []

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        keys: dict[str, Any] = {}
        for i, curve in enumerate(curves):
            style = look(i)
            (drawn,) = axes.plot(curve.x, curve.y, **style, ms=4, lw=1.3)
            keys[name_of(curve.levels)] = drawn
            axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.15, lw=0)
        axes.set_xlabel(f"{column} (tokens)")
        axes.set_ylabel(metric.replace("_", " "))
        if np.ptp(curves[0].x) > 0 and curves[0].x.min() > 0 and curves[0].x.max() / curves[0].x.min() >= 8:
            axes.set_xscale("log", base=2)
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


def rating_figure(table: Table, results: Results) -> Figure | None:
    """Elo of each configuration against the win rate's baseline."""
    found = ratings.ratings(results, ratings.win_rate_samples(results))
    if len(found) < 2 or len(found) > 40:
        return None

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for y, r in enumerate(found):
            axes.plot([r.low, r.high], [y, y], color=PALETTE[0], lw=1.8, solid_capstyle="round")
            axes.plot(r.elo, y, "o", ms=4.5, mec=PALETTE[0], mfc=PALETTE[0] if r.basis == "seeds" else "none")
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(range(len(found)), [r.name for r in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel("Elo against the baseline of the win rate")
        axes.grid(axis="x")
        axes.set_axisbelow(True)

    return draw(
        "ratings",
        "Ratings.",
        "Bradley-Terry strengths on Elo's scale with 95 % intervals, over seeds (filled) or over items of "
        "these checkpoints (hollow).",
        size=(HALF, 0.8 + 0.22 * len(found)),
        paint=paint,
    )


def scaling_curves(results: Results, law: scaling.Fitted | None) -> Figure | None:
    """The loss by size, one curve of the law for each amount of text; hollow points were foretold."""
    if law is None:
        return None
    unseen = {p.name for p in law.held_out}
    points = [
        (*(float(v) for v in np.mean(found, axis=0)), name_of(levels) in unseen)
        for levels in results.records
        if (found := scaling.runs(results, levels, (law.size, law.data, law.loss)))
    ]
    # Amounts of text that differ by a batch are one.
    amounts = sorted({float(f"{data:.2g}") for _, data, _, _ in points})
    sizes = np.geomspace(min(p[0] for p in points), max(p[0] for p in points), 60)
    texts = [f"{amount:,.0f}" for amount in amounts]

    def paint(canvas: Any) -> None:
        axes, keys = canvas.subplots(), {}
        for place, (amount, text) in enumerate(zip(amounts, texts, strict=True)):
            style = look(place)
            here = [p for p in points if float(f"{p[1]:.2g}") == amount]
            curve = law.law.predict(sizes, np.full_like(sizes, np.mean([p[1] for p in here])))
            (keys[text],) = axes.plot(
                sizes, curve, color=style["color"], lw=1.3, linestyle=style["linestyle"]
            )
            for size, _, loss, hollow in here:
                fill = "none" if hollow else style["color"]
                axes.plot([size], [loss], style["marker"], ms=4.5, mec=style["color"], mfc=fill)
        axes.set_xscale("log")
        axes.set_xlabel(law.size)
        axes.set_ylabel(law.loss.rpartition(".")[2])
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        legend(canvas, keys)

    return draw(
        "scaling_law",
        "Scaling law.",
        f"Means over seeds and the fitted law, one curve for each {law.data}; hollow points were foretold.",
        size=(HALF, 2.8 + legend_height(texts, HALF)),
        paint=paint,
    )


def critical_difference(table: Table, results: Results) -> Figure | None:
    """Average ranks over tasks, joined where Nemenyi's test cannot tell them apart."""
    metrics = decided_on(table)
    ranks = views.average_ranks(results, metrics) if metrics else None
    if ranks is None or len(ranks.names) > 24:
        return None
    order = np.argsort(ranks.ranks)
    k, half = len(order), (len(order) + 1) // 2
    bars = views.cliques(ranks)

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.set_xlim(0.2 - 0.35 * k, k * 1.35 + 0.8)
        depth = half + 1.2 + 0.35 * len(bars)
        axes.set_ylim(-depth, 2.2)
        axes.axis("off")
        axes.plot([1, k], [0, 0], color=INK, lw=1)
        for tick in range(1, k + 1):
            axes.plot([tick, tick], [0, 0.22], color=INK, lw=0.8)
            axes.text(tick, 0.4, str(tick), ha="center", fontsize=8)
        cd = ranks.critical_difference
        axes.plot([1, 1 + cd], [1.5, 1.5], color=INK, lw=1.6, solid_capstyle="butt")
        axes.text(1 + cd / 2, 1.68, f"critical difference {cd:.2f}", ha="center", fontsize=8)
        for i, (start, end) in enumerate(bars):
            y = -0.35 - 0.32 * i
            axes.plot([start - 0.04, end + 0.04], [y, y], color=PALETTE[0], lw=2.6, solid_capstyle="round")
        for place, which in enumerate(order):
            left = place < half
            y = -0.35 * len(bars) - 0.8 - (place if left else k - 1 - place)
            x, rank = (0.75 if left else k + 0.25), ranks.ranks[which]
            axes.plot([rank, rank, x], [0, y, y], color=SOFT, lw=0.8)
            side = "right" if left else "left"
            text = f"{ranks.names[which]}  {rank:.1f}" if left else f"{rank:.1f}  {ranks.names[which]}"
            axes.text(x - 0.08 if left else x + 0.08, y, text, ha=side, va="center", fontsize=8)

    return draw(
        "critical_difference",
        "Average ranks.",
        f"Over {ranks.blocks} tasks (means over seeds), best left; a bar joins what Nemenyi's test at 5 % "
        f"cannot tell apart. Friedman p {'< 0.001' if ranks.p < 0.001 else f'= {ranks.p:.3f}'}.",
        size=(WIDE, 1.2 + 0.24 * half + 0.09 * len(bars)),
        paint=paint,
        wide=True,
    )
