"""Figure of a scaling law: the fitted curves with what was measured and what was foretold."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.report import scaling
from harness.report.drawing import HALF, Figure, draw, legend, legend_height, logarithmic, look
from harness.report.frames import Results


def scaling_curves(results: Results, law: scaling.Fitted | None) -> Figure | None:
    """The loss by size, one curve of the law for each amount of text; hollow points were foretold."""
    if law is None:
        return None
    unseen = {p.levels for p in law.held_out}
    points = [
        (*(float(v) for v in np.mean(found, axis=0)), levels in unseen)
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
        logarithmic(axes)
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
