"""A table from records: its rows, columns and numbers, and the order in which they are judged."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.errors import ConfigError
from harness.report.bounds import remarks
from harness.report.captions import caption
from harness.report.decisions import Decisions
from harness.report.frames import Results
from harness.report.layout import Better, Layout, fit
from harness.report.numbers import counted, power_of
from harness.report.opponents import against_itself
from harness.report.quantities import primary_by_default
from harness.report.record import label
from harness.report.statistics import MIN_ITEMS, Estimate, estimate
from harness.report.table import Column, Selection, Table, TableCell
from harness.report.verdicts import compare_to_baseline, contrasts_to_baseline, contrasts_to_best, rank


def build(results: Results, layout: Layout, decisions: Decisions | None = None) -> Table:
    """The table of a layout over records; `decisions` may hold the claims that are decided with it.

    Raises: UnknownNameError for a factor, level or metric that the records do not have
    """
    layout = fit(layout, results)
    results.labels = layout.labels
    kept = {f: levels_kept(results, layout, f) for f in results.factors}
    fixed = {f: levels[0] for f, levels in kept.items() if f in layout.where and len(levels) == 1}
    rows = [row for row in combinations(kept, layout.rows) if results.configurations({**fixed, **row})]
    if not rows:
        wanted = ", ".join(f"{f}={' or '.join(kept[f])}" for f in layout.where)
        raise ConfigError(f"table '{layout.name}': no record has {wanted}; choose other levels in `where`")
    direct(results, layout)
    infos = [(spec, results.metrics[results.resolve(spec.metric)]) for spec in layout.metrics]
    primary = primary_metrics(results, layout)
    columns = [
        Column(where=where, spec=spec, info=info, primary=info.name in primary)
        for where in combinations(kept, layout.columns)
        if results.configurations({**fixed, **where})
        for spec, info in infos
        if not spec.optional or any_measured(results, {**fixed, **where}, info.name)
    ]
    shown = {*layout.rows, *layout.columns}
    given = {f: label(v) for f, v in {**results.baseline, **layout.baseline}.items()}
    table = Table(
        name=layout.name,
        title=layout.title or str(results.name),
        layout=layout,
        columns=columns,
        rows=rows,
        cells=[],
        baseline={f: v for f, v in given.items() if f in shown},
        caption=[],
        footnotes=[*layout.footnotes, *results.notes, *undecidable(results, layout)],
        decisions=decisions or Decisions(results),
    )
    table.cells = [
        [new_cell(results, table, {**fixed, **row, **c.where}, c) for c in columns] for row in rows
    ]
    if not columns:
        table.footnote(nothing_measured(results))
    pairs = contrasts_to_baseline(table)
    bests = contrasts_to_best(table)
    compare_to_baseline(table, pairs)
    rank(table, bests)
    write_numbers(table)
    table.caption = caption(results, table)
    return table


def nothing_measured(results: Results) -> str:
    """Why a table has no column of numbers."""
    ended = Counter(record.reason or record.status for record in results.all_records())
    said = "; ".join(f"{reason} (records: {count})" for reason, count in ended.most_common(4))
    return f"No record holds a number that this table shows: {said}."


def direct(results: Results, layout: Layout) -> None:
    """Lets the directions of a layout hold for all that reads its metrics: figures, claims, ranks.

    Raises: ConfigError where two columns give one metric different directions
    """
    given: dict[str, Better] = {}
    for spec in layout.metrics:
        if spec.better is not None:
            metric = results.resolve(spec.metric)
            if given.setdefault(metric, spec.better) != spec.better:
                raise ConfigError(f"report.metrics: '{metric}' is better {given[metric]} and {spec.better}")
            better = {"higher": True, "lower": False, "none": None}[spec.better]
            results.metrics[metric] = replace(results.metrics[metric], higher_is_better=better)


def declared(results: Results, layout: Layout) -> tuple[str, ...]:
    """What the layout, or else the experiment, says that it decides on, as it is written."""
    return layout.primary or tuple(results.all_records()[-1].experiment.get("primary") or ())


def primary_metrics(results: Results, layout: Layout) -> set[str]:
    """Full names of the metrics to decide on: the layout's, the experiment's, else every measured quality."""
    names = declared(results, layout)
    if names:
        return results.declared(names)
    return {
        m.name for m in results.metrics.values() if m.measured and primary_by_default(m.name, results.metrics)
    }


def undecidable(results: Results, layout: Layout) -> list[str]:
    """What was to be decided on and nothing here measured: a sentence, or none."""
    lacking = [name for name in declared(results, layout) if not results.knows(name)]
    return [f"Not decided on, as nothing here measured it: {', '.join(lacking)}."] if lacking else []


def levels_kept(results: Results, layout: Layout, factor: str) -> list[str]:
    wanted = layout.where.get(factor)
    if wanted is None:
        return results.factors[factor]
    names = [label(v) for v in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    if not names:
        raise ConfigError(f"report.where.{factor} keeps no level; name some of {results.factors[factor]}")
    for name in names:
        results.configurations({factor: name})  # raises for an unknown level
    return names


def combinations(levels: dict[str, list[str]], factors: Sequence[str]) -> list[Selection]:
    return [dict(zip(factors, c, strict=True)) for c in itertools.product(*(levels[f] for f in factors))]


def any_measured(results: Results, where: Selection, metric: str) -> bool:
    """Whether some configuration with these levels has the metric."""
    return any(
        results.measured(dict(zip(results.factors, found, strict=True)), metric) is not None
        for found in results.configurations(where)
    )


def new_cell(results: Results, table: Table, where: Selection, column: Column) -> TableCell:
    """Estimate, or the reasons for its absence."""
    metric = column.info.name
    measured = results.measured(where, metric)
    cell = TableCell(where=where, metric=metric, measured=measured, missing=results.missing(where, metric))
    cell.cells = [
        r.cell for levels in results.configurations(where) for r in results.records[levels].values()
    ]
    if column.spec.note:
        table.footnote(column.spec.note)
    if measured is None:
        return cell
    cell.estimate = estimate(measured)
    records = [r for levels in results.configurations(where) for r in results.records[levels].values()]
    cell.itself = all(against_itself(record, metric) for record in records)
    cell.verdict = "untested"
    for text in remarks(results, metric, cell.estimate):
        cell.notes.append(table.footnote(text))
    for text in dict.fromkeys(text for id_ in cell.cells for text in results.marks.get(id_, ())):
        cell.notes.append(table.footnote(text))
    if cell.missing:
        shown = f"mean of {len(measured.values)} of {len(results.seeds)} seeds; {'; '.join(cell.missing)}"
        cell.notes.append(table.footnote(shown))
    if 0 < cell.estimate.num_items < MIN_ITEMS and cell.estimate.basis != "seeds":
        few = counted(cell.estimate.num_items, "item")
        text = f"only {few}: no interval over items and no test over them"
        cell.notes.append(table.footnote(text))
    return cell


def write_numbers(table: Table) -> None:
    """Text of every number: as many decimals in a column's metric as its uncertainty carries."""
    decimals: dict[str, str] = {}
    for j, column in enumerate(table.columns):
        if column.spec.metric not in decimals:
            cells = [
                line[k] for line in table.cells for k, c in enumerate(table.columns) if c.spec == column.spec
            ]
            decimals[column.spec.metric] = column.spec.format or auto_format(cells, column.spec.scale)
        for line in table.cells:
            cell = line[j]
            if cell.estimate is None or cell.itself:
                cell.text = cell.value = "-"
                continue
            style, scale = decimals[column.spec.metric], column.spec.scale
            half = half_width(cell.estimate, table.layout.interval)
            cell.value = format(cell.estimate.mean * scale, style)
            cell.spread = "" if half is None else spread_text(half * scale, style)
            cell.text = cell.value + (f" ±{cell.spread}" if cell.spread else "")


def spread_text(half: float, style: str) -> str:
    """`0.012`; `<0.001` of one that would be rounded to nothing."""
    text = format(half, style)
    nothing = half > 0 and not text.strip("0.,")
    return "<" + text[:-1] + "1" if nothing else text


def half_width(found: Estimate, interval: str) -> float | None:
    if interval == "none":
        return None
    if interval == "sd":
        return found.sd
    if found.high is None or found.low is None:
        return None
    # An interval cut at 0 or 1 is not symmetric: its longer side.
    return max(found.high - found.mean, found.mean - found.low)


MOST_PLACES = 6
"""Decimals of a number in a table."""


def auto_format(cells: Sequence[TableCell], scale: float) -> str:
    """Two digits of the median uncertainty; without one, four significant digits of the largest value.

    Powers of ten where plain digits cannot be read: a perplexity of 1e29, a rate of 1e-7.
    """
    estimates = [c.estimate for c in cells if c.estimate]
    halves = [h * scale for e in estimates if (h := half_width(e, "ci"))]
    largest = max((abs(e.mean * scale) for e in estimates), default=0.0)
    if power_of(largest, exact=not halves):
        return ".2e"
    if halves:
        places = 1 - int(np.floor(np.log10(float(np.median(halves)))))
    elif largest:
        places = 3 - int(np.floor(np.log10(largest)))
        if all(float(e.mean * scale).is_integer() for e in estimates):
            places = 0
        # Exact numbers that differ, and are marked so, are printed apart.
        values = {float(f"{e.mean * scale:.9g}") for e in estimates}
        while places < MOST_PLACES and len({round(v, places) for v in values}) < len(values):
            places += 1
    else:
        places = 0
    return f".{min(max(places, 0), MOST_PLACES)}f"
