"""What a reader must know before believing a number: the sentences under a table."""

from __future__ import annotations

import numpy as np

from harness.report.frames import Results
from harness.report.numbers import comparisons, counted
from harness.report.starts import shared_models
from harness.report.table import Table, heading


def caption(results: Results, table: Table) -> list[str]:
    """What a reader must know before believing a number."""
    lines = []
    some = results.all_records()[0]
    seeds = ", ".join(map(str, results.seeds))
    many = len(results.seeds) > 1
    start = some.data.get("seed_from")
    lines.append(
        f"{counted(len(results.records), 'configuration')}, seed{'s' * many} {seeds}"
        + (f"; a seed varies {start} and all after it, earlier stages are shared." if start and many else ".")
    )
    if many and (shared := shared_models(results)):
        lines.append(
            f"All seeds start from one {' and one '.join(shared)}: what is decided holds given this "
            "checkpoint; `reseed: all` would vary it."
        )
    columns = table.columns[0].where if table.columns else table.layout.columns
    shown = {*(table.rows[0] if table.rows else ()), *columns}
    averaged = [f for f, v in results.factors.items() if f not in shown and len(v) > 1]
    if averaged := [f for f in averaged if f not in table.layout.where]:
        lines.append(f"Averaged over {', '.join(averaged)}.")
    bases = {c.estimate.basis for c in table.all_cells() if c.estimate}
    if table.layout.interval == "ci":
        over = {"seeds": "over seeds (Student's t)", "items": "over the items of these checkpoints"}
        named = [over[b] for b in ("seeds", "items") if b in bases]
        if named:
            between = "; where seeds agree or are fewer than three, "
            lines.append(f"± is the longer side of the 95 % interval {between.join(named)}.")
    elif table.layout.interval == "sd":
        lines.append("± is the standard deviation over seeds.")
    lines += comparison_caption(table)
    if table.layout.best and any(c.rank for c in table.all_cells()):
        within = f" and {table.layout.text(table.layout.group)}" if table.layout.group else ""
        lines.append(
            f"Bold: the best value of its column{within}; underlined: cannot be excluded from being best "
            "(Hsu's comparisons with the best, 5 %)."
        )
        if any(c.missing and c.estimate for c in table.all_cells()):
            lines.append("A mean of fewer seeds than the others' is not ranked.")
    return lines


def comparison_caption(table: Table) -> list[str]:
    """Which comparisons were made with what, and what the marks mean."""
    if not table.baseline:
        return ["No baseline is declared, so nothing is tested."]
    at = ", ".join(f"{table.layout.text(f)} = {table.layout.text(v)}" for f, v in table.baseline.items())
    lines = [f"Baseline: {at}."]
    if not any(c.verdict == "baseline" for c in table.all_cells()):
        return [*lines, "It has no number here, so nothing is compared with it."]
    compared = [c for c in table.all_cells() if c.comparison]
    seeds = [c.comparison for c in compared if c.comparison and c.comparison.test == "simultaneous t"]
    items = [c.comparison for c in compared if c.comparison and c.comparison.test == "document bootstrap"]
    if seeds:
        lines.append(
            "▲ better, ▼ worse, ≈ not distinguishable from the baseline: simultaneous 95 % intervals of "
            "per-seed differences, variances pooled over configurations and guarded against unequal ones; "
            f"a family for each metric ({comparisons(*(c.family for c in seeds))})."
        )
    if any(c.comparison and c.comparison.test == "exact" for c in compared):
        lines.append(
            "Numbers that no seed moves and no sampling went into (= equal) are compared as they are."
        )
    if items:
        lines.append(
            "△ better, ▽ worse, ≃ not distinguishable, as fixed checkpoints only: bootstrap over documents, "
            f"simultaneous 95 % ({comparisons(*(c.family for c in items))}); "
            "another seed may say otherwise."
        )
    if any(c.verdict == "differs" for c in compared):
        lines.append("≠ (≄ as fixed checkpoints only): differs where no direction is better.")
    secondary = list(dict.fromkeys(heading(c) for c in table.columns if not c.primary))
    if secondary:
        lines.append(f"Not decided on, so without marks unless exact: {', '.join(secondary)}.")
    undecided = sorted({c.reason.partition(";")[0] for c in items if c.reason})
    undecided = undecided or sorted(
        {
            c.comparison.reason.partition(";")[0]
            for c in compared
            if c.comparison and c.verdict == "undecided" and c.comparison.reason
        }
    )
    if undecided:
        lines.append(f"About methods such cells are undecided: {'; '.join(undecided)}.")
    found: dict[str, list[float]] = {}
    for cell in compared:
        c = cell.comparison
        if c and c.detectable is not None and c.about == "methods" and cell.verdict != "secondary":
            found.setdefault(cell.metric, []).append(c.detectable)
    specs = {c.info.name: c for c in table.columns}
    if found:
        sizes = ", ".join(
            f"{heading(specs[m])} {two_digits(float(np.median(v)) * specs[m].spec.scale)}"
            for m, v in found.items()
        )
        lines.append(f"Smallest difference that is marked with 80 % power (median): {sizes}.")
    return lines


def two_digits(value: float) -> str:
    """About two digits, never as a power of ten: 0.019, 4.5, 280."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"
