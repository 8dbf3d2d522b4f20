"""The table: every cell an estimate, a comparison to the baseline, a rank, or a reason why it is empty."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from harness.report.frames import MetricInfo, Results
from harness.report.layout import Layout, MetricColumn, fit
from harness.report.records import label
from harness.report.statistics import (
    MIN_ITEMS,
    MIN_SEEDS,
    Comparison,
    Estimate,
    Measured,
    compare,
    estimate,
    holm,
    mixed_model,
)

Verdict = Literal["baseline", "better", "worse", "tie", "undecided", "untested", "missing"]
Selection = dict[str, str]


@dataclass(kw_only=True)
class TableCell:
    """One number of a table with all that stands behind it."""

    where: Selection
    """Factor -> level; factors not named were averaged over."""
    metric: str
    measured: Measured | None = None
    estimate: Estimate | None = None
    comparison: Comparison | None = None
    verdict: Verdict = "missing"
    rank: int = 0
    """1 best of its column and group, ties included; 2 second best; 0 neither."""
    missing: list[str] = field(default_factory=list)
    """Why seeds or the whole cell lack a number."""
    notes: list[int] = field(default_factory=list)
    """Indices of the table's footnotes."""
    cells: list[str] = field(default_factory=list)
    """Ids of the records behind the number."""
    text: str = ""
    """The number as printed, with its interval."""
    value: str = ""
    """The number alone."""
    spread: str = ""
    """The interval alone, e.g. `0.012`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    where: Selection
    spec: MetricColumn
    info: MetricInfo

    @property
    def higher_is_better(self) -> bool | None:
        """None where no direction is better."""
        better = {"higher": True, "lower": False, "none": None}
        return better[self.spec.better] if self.spec.better else self.info.higher_is_better

    @property
    def unit(self) -> str:
        return self.spec.unit or ("%" if self.spec.scale == 100 and not self.info.unit else self.info.unit)


@dataclass(kw_only=True)
class Table:
    """A finished table."""

    name: str
    title: str
    layout: Layout
    columns: list[Column]
    rows: list[Selection]
    cells: list[list[TableCell]]
    baseline: Selection
    caption: list[str]
    """What the numbers, marks and tests are, one sentence each."""
    footnotes: list[str] = field(default_factory=list)

    def all_cells(self) -> list[TableCell]:
        return [cell for line in self.cells for cell in line]

    def footnote(self, text: str) -> int:
        """Index of a footnote, added where it is new."""
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text)


def build(results: Results, layout: Layout) -> Table:
    """The table of a layout over records.

    Raises: UnknownNameError for a factor, level or metric that the records do not have
    """
    layout = fit(layout, results)
    kept = {f: levels_kept(results, layout, f) for f in results.factors}
    fixed = {f: levels[0] for f, levels in kept.items() if f in layout.where and len(levels) == 1}
    rows = [row for row in combinations(kept, layout.rows) if results.configurations({**fixed, **row})]
    infos = [(spec, results.metrics[results.resolve(spec.metric)]) for spec in layout.metrics]
    columns = [
        Column(where=where, spec=spec, info=info)
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
        footnotes=[*layout.footnotes, *results.notes],
    )
    table.cells = [
        [new_cell(results, table, {**fixed, **row, **c.where}, c) for c in columns] for row in rows
    ]
    compare_to_baseline(table)
    rank(table)
    write_numbers(table)
    table.caption = caption(results, table)
    return table


def levels_kept(results: Results, layout: Layout, factor: str) -> list[str]:
    wanted = layout.where.get(factor)
    if wanted is None:
        return results.factors[factor]
    names = [label(v) for v in (wanted if isinstance(wanted, list | tuple) else [wanted])]
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
    cell.verdict = "untested"
    for text in dict.fromkeys(text for id_ in cell.cells for text in results.marks.get(id_, ())):
        cell.notes.append(table.footnote(text))
    if cell.missing:
        shown = f"mean of {len(measured.values)} of {len(results.seeds)} seeds; {'; '.join(cell.missing)}"
        cell.notes.append(table.footnote(shown))
    if 0 < cell.estimate.num_items < MIN_ITEMS and cell.estimate.basis != "seeds":
        text = f"only {cell.estimate.num_items} items: no interval over items and no test over them"
        cell.notes.append(table.footnote(text))
    return cell


def compare_to_baseline(table: Table) -> None:
    """Each cell against the one of its column's metric at the baseline's levels, Holm over the table."""
    if not table.baseline:
        return
    places = references(table)

    def reference_of(cell: TableCell) -> TableCell | None:
        """The cell of the same metric that stands at the declared baseline, in the table."""
        return places.get((cell.metric, tuple(sorted({**cell.where, **table.baseline}.items()))))

    pools = mixed_pools(table, reference_of) if table.layout.test == "mixed" else {}
    for line in table.cells:
        for cell in line:
            reference = reference_of(cell)
            if cell.measured is None:
                continue
            if reference is cell:
                cell.verdict = "baseline"
            elif reference is not None and reference.measured is not None:
                pooled = pools.get(id(cell))
                cell.comparison = pooled or compare(cell.measured, reference.measured)
    families: dict[str, list[TableCell]] = {}
    for cell in table.all_cells():
        if cell.comparison and cell.comparison.p is not None:
            families.setdefault(cell.metric if table.layout.family == "metric" else "", []).append(cell)
    for family in families.values():
        adjusted = holm(
            [cell.comparison.p for cell in family if cell.comparison and cell.comparison.p is not None]
        )
        for cell, p in zip(family, adjusted, strict=True):
            assert cell.comparison
            cell.comparison = replace(cell.comparison, p_holm=p)
    for line in table.cells:
        for cell, column in zip(line, table.columns, strict=True):
            if cell.comparison:
                cell.verdict = verdict(cell.comparison, column.higher_is_better)


def references(table: Table) -> dict[tuple[str, tuple[tuple[str, str], ...]], TableCell]:
    """Every cell by its metric and place."""
    return {(cell.metric, tuple(sorted(cell.where.items()))): cell for cell in table.all_cells()}


def mixed_pools(table: Table, reference_of: Callable[[TableCell], TableCell | None]) -> dict[int, Comparison]:
    """Comparisons by the mixed model, for metrics where every cell has the same three seeds or more."""
    found: dict[int, Comparison] = {}
    by_metric: dict[str, list[TableCell]] = {}
    for cell in table.all_cells():
        by_metric.setdefault(cell.metric, []).append(cell)
    for cells in by_metric.values():
        reference = reference_of(cells[0])
        measured = [c.measured for c in cells if c.measured]
        if reference is None or len(measured) < len(cells) or len({tuple(m.seeds) for m in measured}) != 1:
            continue
        values_CS = np.array([[m.values[s] for s in m.seeds] for m in measured])
        if len(measured[0].seeds) >= MIN_SEEDS and len(cells) > 2:
            comparisons = mixed_model(values_CS, baseline=[c is reference for c in cells].index(True))
            found.update({id(c): k for c, k in zip(cells, comparisons, strict=True) if k.p is not None})
    return found


def verdict(comparison: Comparison, higher_is_better: bool | None) -> Verdict:
    """What the comparison says; a fixed-checkpoint test speaks through `comparison.about`."""
    if comparison.p is None and comparison.test != "exact":
        return "untested" if comparison.num_seeds >= MIN_SEEDS else "undecided"
    if not comparison.significant:
        return "tie"
    if higher_is_better is None:
        return "untested"
    return "better" if (comparison.difference > 0) == higher_is_better else "worse"


def rank(table: Table) -> None:
    """Mark the best of each column and group with all that tie with it, then the next."""
    if not table.layout.best:
        return
    group = table.layout.group
    for j, column in enumerate(table.columns):
        better = column.higher_is_better
        if better is None:
            continue
        for _, indices in itertools.groupby(
            range(len(table.rows)), key=lambda i: table.rows[i].get(group, "") if group else ""
        ):
            cells = [table.cells[i][j] for i in indices]
            present = [c for c in cells if c.estimate is not None]
            if len(present) > 1:
                mark(present, higher_is_better=better)


def mark(cells: Sequence[TableCell], *, higher_is_better: bool) -> None:
    """Rank 1 for the best and its ties, 2 for the best of the rest; nothing where all tie."""

    def mean(cell: TableCell) -> float:
        assert cell.estimate
        return cell.estimate.mean if higher_is_better else -cell.estimate.mean

    ordered = sorted(cells, key=mean, reverse=True)
    best = ordered[0]
    assert best.measured
    found = [compare(best.measured, c.measured) for c in ordered[1:] if c.measured]
    tested = [c for c in found if c.p is not None]
    adjusted = iter(holm([c.p for c in tested if c.p is not None]))
    found = [replace(c, p_holm=next(adjusted)) if c.p is not None else c for c in found]
    tied = [best]
    for cell, comparison in zip(ordered[1:], found, strict=True):
        if not comparison.significant:
            tied.append(cell)
    rest = [c for c in ordered if c not in tied]
    if rest:
        for cell in tied:
            cell.rank = 1
        for cell in rest:
            cell.rank = 2 if mean(cell) == mean(rest[0]) else 0


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
            if cell.estimate is None:
                cell.text = cell.value = "-"
                continue
            style, scale = decimals[column.spec.metric], column.spec.scale
            half = half_width(cell.estimate, table.layout.interval)
            cell.value = format(cell.estimate.mean * scale, style)
            cell.spread = "" if half is None else format(half * scale, style)
            cell.text = cell.value + (f" ±{cell.spread}" if cell.spread else "")


def half_width(found: Estimate, interval: str) -> float | None:
    if interval == "none":
        return None
    if interval == "sd":
        return found.sd
    return None if found.high is None or found.low is None else (found.high - found.low) / 2


def auto_format(cells: Sequence[TableCell], scale: float) -> str:
    """Two digits of the median uncertainty; without one, four significant digits of the largest value."""
    estimates = [c.estimate for c in cells if c.estimate]
    halves = [h * scale for e in estimates if (h := half_width(e, "ci"))]
    largest = max((abs(e.mean * scale) for e in estimates), default=0.0)
    if halves:
        places = 1 - int(np.floor(np.log10(float(np.median(halves)))))
    elif largest:
        places = 3 - int(np.floor(np.log10(largest)))
        if all(float(e.mean * scale).is_integer() for e in estimates):
            places = 0
    else:
        places = 0
    return f".{min(max(places, 0), 6)}f"


def caption(results: Results, table: Table) -> list[str]:
    """What a reader must know before believing a number."""
    lines = []
    some = results.all_records()[0]
    seeds = ", ".join(map(str, results.seeds))
    many = len(results.seeds) > 1
    start = some.data.get("seed_from")
    lines.append(
        f"{len(results.records)} configurations, seed{'s' * many} {seeds}"
        + (f"; a seed varies {start} and all after it, earlier stages are shared." if start and many else ".")
    )
    shown = {*(table.rows[0] if table.rows else ()), *(table.columns[0].where if table.columns else ())}
    averaged = [f for f, v in results.factors.items() if f not in shown and len(v) > 1]
    if averaged := [f for f in averaged if f not in table.layout.where]:
        lines.append(f"Averaged over {', '.join(averaged)}.")
    bases = {c.estimate.basis for c in table.all_cells() if c.estimate}
    if table.layout.interval == "ci":
        over = {"seeds": "over seeds (Student's t)", "items": "over the items of these checkpoints"}
        named = [over[b] for b in ("seeds", "items") if b in bases]
        if named:
            between = "; where seeds agree or are fewer than three, "
            lines.append(f"± is half the 95 % interval {between.join(named)}.")
    elif table.layout.interval == "sd":
        lines.append("± is the standard deviation over seeds.")
    lines += comparison_caption(table)
    if table.layout.best and any(c.rank for c in table.all_cells()):
        within = f" and {table.layout.text(table.layout.group)}" if table.layout.group else ""
        lines.append(f"Bold: best of its column{within} with all that tie with it; underlined: second best.")
    return lines


def comparison_caption(table: Table) -> list[str]:
    """Which tests were made against what, and what the marks mean."""
    if not table.baseline:
        return ["No baseline is declared, so nothing is tested."]
    at = ", ".join(f"{table.layout.text(f)} = {table.layout.text(v)}" for f, v in table.baseline.items())
    tested = [c.comparison for c in table.all_cells() if c.comparison and c.comparison.p is not None]
    undecided = sorted(
        {
            c.comparison.reason.partition(";")[0]
            for c in table.all_cells()
            if c.comparison and c.verdict != "untested" and c.comparison.reason
        }
    )
    family = "the table" if table.layout.family == "table" else "each metric"
    lines = [f"Baseline: {at}."]
    if any(c.about == "methods" for c in tested):
        tests = " / ".join(sorted({c.test for c in tested if c.about == "methods"}))
        lines.append(
            f"▲ better, ▼ worse, ≈ not distinguishable from the baseline: {tests} on per-seed differences, "
            f"5 % after Holm over {family} ({len(tested)} comparisons)."
        )
    if any(c.comparison and c.comparison.test == "exact" for c in table.all_cells()):
        lines.append(
            "Numbers that no seed moves and no sampling went into (= equal) are compared as they are."
        )
    if any(c.about == "checkpoints" for c in tested):
        tests = " / ".join(sorted({c.test for c in tested if c.about == "checkpoints"}))
        lines.append(
            f"△ better, ▽ worse, ≃ not distinguishable, as fixed checkpoints only: {tests} over items, "
            f"5 % after Holm over {family}; another seed may say otherwise."
        )
    if undecided:
        lines.append(f"About methods such cells are undecided: {'; '.join(undecided)}.")
    found: dict[str, list[float]] = {}
    for cell in table.all_cells():
        if cell.comparison and cell.comparison.detectable is not None and cell.comparison.about == "methods":
            found.setdefault(cell.metric, []).append(cell.comparison.detectable)
    specs = {c.info.name: c for c in table.columns}
    if found:
        sizes = ", ".join(
            f"{heading(specs[m])} {two_digits(float(np.median(v)) * specs[m].spec.scale)}"
            for m, v in found.items()
        )
        lines.append(f"Smallest difference found with 80 % power by one such test alone (median): {sizes}.")
    return lines


def two_digits(value: float) -> str:
    """About two digits, never as a power of ten: 0.019, 4.5, 280."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def heading(column: Column) -> str:
    """A metric's heading: its label, else task and metric without what they repeat."""
    if column.spec.label:
        return column.spec.label
    *_, task, metric = column.info.name.split(".")
    words = metric if task in (metric, "perplexity", "efficiency") else f"{task} {metric}"
    return words.replace("_", " ")


MARKS = {
    ("better", "methods"): "▲",
    ("worse", "methods"): "▼",
    ("tie", "methods"): "≈",
    ("better", "checkpoints"): "△",
    ("worse", "checkpoints"): "▽",
    ("tie", "checkpoints"): "≃",
}


def sign(cell: TableCell) -> str:
    """The mark of a cell's verdict."""
    if cell.verdict == "undecided":
        return "?"
    if cell.verdict == "tie" and cell.comparison and cell.comparison.test == "exact":
        return "="
    about = cell.comparison.about if cell.comparison else "nothing"
    return MARKS.get((cell.verdict, about), "")
