"""Figures: SVG files with live text, whose ink follows the page's light or dark; PNG and PDF where asked."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report import ratings, views
from harness.report.frames import Results, name_of
from harness.report.quantities import is_cost
from harness.report.table import Column, Table, decided_on, heading, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE = "#1d1f23", "#8d929b", "#e4e4e0"
PALETTE = ("#3b6fd4", "#d9822b", "#2a9d74", "#b0559d", "#8a8f2f", "#c4473a", "#4aa3c7", "#7a6bd1")
THEMED = {INK: "currentColor", SOFT: "var(--faint)", LINE: "var(--line)"}
AGAINST = ("tokens", "flops", "seconds")
IMAGES: Mapping[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
"""Formats beside SVG, with the metadata to leave out so that the same records give the same bytes."""
UNITS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds", "steps": "steps"}
MAX_METRICS = 6
WIDE, HALF = 10.6, 5.1
"""Inches; a wide figure spans the page."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A finished figure."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    svg: str
    """For the page: no size, ink in the page's colours."""
    file: str
    """For a file: black on white."""
    render: Callable[[str], bytes]
    """The same in a format of IMAGES."""
    wide: bool = False


def figures(table: Table, results: Results) -> list[Figure]:
    """Every view that these records allow."""
    made: list[Figure | None] = [
        marginal_effects(table, results),
        interactions(table, results),
        pareto_fronts(table, results),
        *(loss_curves(results, stage) for stage in ("pretrain", "extend", "instruct", "reward", "align")),
        *(figure for column in ("position", "length") for figure in sample_curves(results, column)),
        rating_figure(table, results),
        critical_difference(table, results),
    ]
    return [figure for figure in made if figure is not None]


def metric_columns(table: Table) -> list[Column]:
    """One column for each metric of the table that has a better direction."""
    found = {c.info.name: c for c in reversed(table.columns) if c.higher_is_better is not None}
    return list(reversed(found.values()))[:MAX_METRICS]


def draw(
    name: str,
    title: str,
    caption: str,
    *,
    size: tuple[float, float],
    paint: Callable[[Any], None],
    wide: bool = False,
) -> Figure:
    """Run `paint` on a new matplotlib figure; the same input gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
        "font.size": 9,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "text.color": INK,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }

    def save(**options: Any) -> bytes:
        with matplotlib.rc_context(style):
            canvas = Canvas(figsize=size, layout="constrained")
            paint(canvas)
            out = io.BytesIO()
            canvas.savefig(out, **options)
            return out.getvalue()

    text = save(format="svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
    text = text[text.index("<svg") :]
    file = text.replace(">", "><rect width='100%' height='100%' fill='white'/>", 1)
    return Figure(
        name=name,
        title=title,
        caption=caption,
        svg=for_page(text, name),
        file=file,
        render=lambda kind: save(format=kind, dpi=200, metadata=IMAGES[kind]),
        wide=wide,
    )


def for_page(svg: str, name: str) -> str:
    """The SVG inline in HTML: scalable, its ids its own, its ink the page's."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for colour, themed in THEMED.items():
        svg = svg.replace(colour, themed)
    return re.sub(r"\n\s*", "\n", svg)


def panels(canvas: Any, n: int, per_row: int) -> Iterator[Axes]:
    """A grid of axes with empty places left out."""
    rows = -(-n // per_row)
    grid = canvas.subplots(rows, min(n, per_row), squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i < n:
            yield axes
        else:
            axes.set_visible(False)


def title(axes: Any, text: str, aside: str) -> None:
    """A panel's title with a remark at its right end."""
    axes.set_title(text)
    axes.set_title(aside, loc="right", color=SOFT, fontsize=8, fontweight="normal")


def forest(axes: Any, effects: Sequence[views.Effect], labels: Sequence[str], column: Column) -> None:
    """Intervals of effects, the good direction tinted by the colour of the point."""
    for y, effect in enumerate(effects):
        c = effect.comparison
        sure = verdict(c, column) in ("better", "worse")
        good = verdict(c, column) == "better"
        colour = (PALETTE[2] if good else PALETTE[5]) if sure else SOFT
        if c.low is not None and c.high is not None:
            axes.plot([c.low, c.high], [y, y], color=colour, lw=1.8, solid_capstyle="round")
        filled = colour if c.about == "methods" else "none"
        axes.plot([c.difference], [y], "o", ms=4.5, mec=colour, mfc=filled, mew=1.3)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)


EFFECT_CAPTION = (
    "Difference to each factor's baseline, averaged over the other factors, with simultaneous 95 % "
    "intervals: green better, red worse, grey not distinguishable from none or not decided on. Filled "
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
                replace(p, x=p.x * scales.get(name, 1.0), y=p.y * quality.spec.scale)
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
    named = len(levels) > len(PALETTE)  # more levels than colours: names at the points of the front instead

    def paint(canvas: Any) -> None:
        for axes, (price, points) in zip(panels(canvas, len(found), 3), found, strict=True):
            front = sorted((p for p in points if p.on_front), key=lambda p: (p.x, p.y))
            axes.plot([p.x for p in front], [p.y for p in front], color=SOFT, lw=1, zorder=1)
            for i, level in enumerate(levels):
                own = [p for p in points if p.levels[factor] == level]
                colour = INK if named else PALETTE[i]
                for p in own:
                    axes.plot(p.x, p.y, "o", ms=6, mec=colour, mfc=colour if p.on_front else "none", mew=1.4)
                    if named and p.on_front:
                        text = table.layout.text(level)
                        axes.annotate(text, (p.x, p.y), (4, 4), textcoords="offset points", fontsize=7)
                axes.plot([], [], "o", color=colour, label=table.layout.text(level))
            axes.set_xlabel(price)
            axes.grid()
            axes.set_axisbelow(True)
            if min(p.x for p in points) > 0 and max(p.x for p in points) / min(p.x for p in points) > 20:
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter("")
        canvas.axes[0].set_ylabel(heading(quality) + (f" ({quality.unit})" if quality.unit else ""))
        if len(levels) > 1 and not named:
            canvas.axes[0].legend(title=table.layout.text(list(results.factors)[factor]), title_fontsize=8)

    direction = "higher" if quality.higher_is_better else "lower"
    return draw(
        "pareto",
        "What quality costs.",
        f"{heading(quality)} ({direction} is better) against its price; filled points are beaten by no other "
        "in both.",
        size=(WIDE if len(found) > 1 else HALF, 2.7),
        paint=paint,
        wide=len(found) > 1,
    )


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

    def paint(canvas: Any) -> None:
        for axes, (against, curves) in zip(panels(canvas, len(found), 3), found, strict=True):
            for curve in curves:
                colour = PALETTE[order.index(curve.levels) % len(PALETTE)]
                dashes = ("-", "--", ":")[order.index(curve.levels) // len(PALETTE) % 3]
                axes.plot(curve.x, curve.y, dashes, color=colour, lw=1.3, label=", ".join(curve.levels))
                if (curve.high > curve.low).any():
                    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
            axes.set_xlabel(UNITS[against])
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        canvas.axes[0].set_ylabel("loss (nats)")
        if 1 < len(order) <= 12:
            canvas.axes[-1].legend(fontsize=7)

    return draw(
        f"loss_{stage}",
        f"Loss of {stage}.",
        "Mean over seeds with their range, against what the stage measured: one abscissa, one budget.",
        size=(WIDE if len(found) > 1 else HALF, 2.7),
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

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for i, curve in enumerate(curves):
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(curve.x, curve.y, "o-", ms=3, color=colour, lw=1.3, label=name_of(curve.levels))
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        axes.set_xlabel(f"{column} (tokens)")
        axes.set_ylabel(metric.replace("_", " "))
        if np.ptp(curves[0].x) > 0 and curves[0].x.min() > 0 and curves[0].x.max() / curves[0].x.min() >= 8:
            axes.set_xscale("log", base=2)
        axes.grid(axis="y")
        if 1 < len(curves) <= 12:
            axes.legend(fontsize=7)

    what = "Loss by position" if column == "position" else "Quality against context length"
    return draw(
        f"by_{column}_{name.rpartition('.')[2]}",
        f"{what}, {name.rpartition('.')[2].replace('_', ' ')}.",
        f"{name}: mean over items and seeds, range over seeds.",
        size=(HALF, 2.8),
        paint=paint,
    )


def rating_figure(table: Table, results: Results) -> Figure | None:
    """Elo of each configuration against the win rate's baseline."""
    name = next((m.rpartition(".")[0] for m in results.metrics if m.endswith(".win_rate")), None)
    found = ratings.ratings(results, name) if name else []
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
