"""Figures of who stands before whom: ratings and average ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.report import ratings, views
from harness.report.drawing import (
    HALF,
    INK,
    PALETTE,
    SOFT,
    WIDE,
    Figure,
    draw,
    short,
)
from harness.report.frames import Results
from harness.report.table import Table, decided_on


def rating_figure(table: Table, results: Results) -> Figure | None:
    """Elo of each configuration against the win rate's baseline."""
    found = ratings.ratings(results, ratings.win_rate_samples(results))
    if len(found) < 2 or len(found) > 40 or ratings.several_opponents(found):
        return None

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        for y, r in enumerate(found):
            axes.plot([r.low, r.high], [y, y], color=PALETTE[0], lw=1.8, solid_capstyle="round")
            axes.plot(r.elo, y, "o", ms=4.5, mec=PALETTE[0], mfc=PALETTE[0] if r.basis == "seeds" else "none")
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(range(len(found)), [short(r.name) for r in found])
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
            text = (
                f"{short(ranks.names[which])}  {rank:.1f}"
                if left
                else f"{rank:.1f}  {short(ranks.names[which])}"
            )
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
