"""The table: every cell an estimate, a comparison to the baseline, a rank, or a reason why it is empty."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.report.bounds import remarks
from harness.report.decisions import Comparison, Contrast, Decisions
from harness.report.frames import MetricInfo, Results
from harness.report.layout import Layout, MetricColumn, fit
from harness.report.numbers import difference_text
from harness.report.opponents import against_itself
from harness.report.quantities import parts, primary_by_default
from harness.report.records import label
from harness.report.statistics import MIN_ITEMS, MIN_SEEDS, Estimate, Measured, estimate

Verdict = Literal["baseline", "better", "worse", "tie", "undecided", "secondary", "untested", "missing"]
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
    """1 the highest estimate of its column and group; 2 not excluded from being best; 0 neither."""
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
    itself: bool = False
    """Whether it was measured against itself, so that its number is a matter of course."""
    spread: str = ""
    """The interval alone, e.g. `0.012`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    where: Selection
    spec: MetricColumn
    info: MetricInfo
    primary: bool = True
    """Whether the experiment decides on this metric; others get intervals and no verdict."""

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
    decisions: Decisions
    """What marks, claims and figures ask."""

    def all_cells(self) -> list[TableCell]:
        return [cell for line in self.cells for cell in line]

    def footnote(self, text: str) -> int:
        """Index of a footnote, added where it is new."""
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text)


def build(results: Results, layout: Layout, decisions: Decisions | None = None) -> Table:
    """The table of a layout over records; `decisions` may hold the claims that are decided with it.

    Raises: UnknownNameError for a factor, level or metric that the records do not have
    """
    layout = fit(layout, results)
    kept = {f: levels_kept(results, layout, f) for f in results.factors}
    fixed = {f: levels[0] for f, levels in kept.items() if f in layout.where and len(levels) == 1}
    rows = [row for row in combinations(kept, layout.rows) if results.configurations({**fixed, **row})]
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
        footnotes=[*layout.footnotes, *results.notes],
        decisions=decisions or Decisions(results),
    )
    table.cells = [
        [new_cell(results, table, {**fixed, **row, **c.where}, c) for c in columns] for row in rows
    ]
    pairs = contrasts_to_baseline(table)
    bests = contrasts_to_best(table)
    compare_to_baseline(table, pairs)
    rank(table, bests)
    write_numbers(table)
    table.caption = caption(results, table)
    return table


def decided_on(table: Table) -> list[str]:
    """The metrics of a table that verdicts are given on and that have a better direction."""
    return [c.info.name for c in table.columns if c.primary and c.higher_is_better is not None]


def primary_metrics(results: Results, layout: Layout) -> set[str]:
    """Full names of the metrics to decide on: the layout's, the experiment's, else every measured quality."""
    declared = layout.primary or tuple(results.all_records()[-1].experiment.get("primary") or ())
    if declared:
        return {results.resolve(name) for name in declared if results.knows(name)}
    return {
        m.name for m in results.metrics.values() if m.measured and primary_by_default(m.name, results.metrics)
    }


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
        text = f"only {cell.estimate.num_items} items: no interval over items and no test over them"
        cell.notes.append(table.footnote(text))
    return cell


Pair = tuple[TableCell, Column, Contrast]


def contrasts_to_baseline(table: Table) -> list[Pair]:
    """Each cell with its contrast to the cell of its metric at the baseline's levels; a family a metric."""
    if not table.baseline:
        return []
    places = {(cell.metric, tuple(sorted(cell.where.items()))): cell for cell in table.all_cells()}
    pairs: list[Pair] = []
    for line in table.cells:
        for cell, column in zip(line, table.columns, strict=True):
            reference = places.get((cell.metric, tuple(sorted({**cell.where, **table.baseline}.items()))))
            if cell.measured is None or reference is None or reference.measured is None:
                continue
            if reference is cell:
                cell.verdict = "baseline"
                continue
            contrast = table.decisions.contrast([(1.0, cell.where), (-1.0, reference.where)], cell.metric)
            if contrast is not None:
                pairs.append((cell, column, contrast))
                table.decisions.declare(f"table {cell.metric}", [contrast])
    return pairs


def compare_to_baseline(table: Table, pairs: Sequence[Pair]) -> None:
    """Read the answers, once every family is declared."""
    for cell, column, contrast in pairs:
        cell.comparison = table.decisions.compare(contrast)
        cell.verdict = verdict(cell.comparison, column)
        if any(cell.comparison.diverged):
            own, other = cell.comparison.diverged
            text = f"diverged at {own} of {len(table.decisions.results.seeds)} seeds, the baseline at {other}"
            cell.notes.append(table.footnote(f"{text}: never better on the seeds that are left"))
        if cell.comparison.left_out:
            cell.notes.append(table.footnote(f"compared over {cell.comparison.left_out}"))


def verdict(comparison: Comparison, column: Column) -> Verdict:
    """What the comparison says; a fixed-checkpoint test speaks through `comparison.about`."""
    if not column.primary and comparison.test != "exact":
        return "secondary"
    if comparison.low is None:
        return "untested" if comparison.num_seeds >= MIN_SEEDS else "undecided"
    if not comparison.significant:
        return "tie"
    if column.higher_is_better is None:
        return "untested"
    if comparison.flattered(higher_is_better=column.higher_is_better):
        return "undecided"
    return "better" if (comparison.difference > 0) == column.higher_is_better else "worse"


Ranked = tuple[list[TableCell], list[tuple[TableCell, Contrast]]]


def contrasts_to_best(table: Table) -> list[Ranked]:
    """By column and group: the cells with the highest estimate, and the others' contrasts to it.

    Only complete cells are ranked: the mean of fewer seeds is not set against that of all.
    Paper: Hsu 1984, doi:10.1214/aos/1176346732 (multiple comparisons with the best)
    """
    found: list[Ranked] = []
    if not table.layout.best:
        return found
    group = table.layout.group
    for j, column in enumerate(table.columns):
        better = column.higher_is_better
        if better is None:
            continue
        for level, indices in itertools.groupby(
            range(len(table.rows)), key=lambda i: table.rows[i].get(group, "") if group else ""
        ):
            cells = [table.cells[i][j] for i in indices]
            present = [c for c in cells if c.estimate is not None and not c.missing]
            if len(present) < 2:
                continue
            best = max(value_of(c, better) for c in present)
            first = [c for c in present if value_of(c, better) == best]
            if len(first) == len(present):
                continue
            others = []
            for cell in present:
                contrast = table.decisions.contrast([(1.0, first[0].where), (-1.0, cell.where)], cell.metric)
                if cell not in first and contrast is not None:
                    others.append((cell, contrast))
            family = f"view best {column.info.name} {sorted(column.where.items())} {level}"
            table.decisions.declare(family, [contrast for _, contrast in others], sides=1)
            found.append((first, others))
    return found


def value_of(cell: TableCell, higher_is_better: bool) -> float:
    assert cell.estimate
    return cell.estimate.mean if higher_is_better else -cell.estimate.mean


def rank(table: Table, bests: Sequence[Ranked]) -> None:
    """Mark the highest estimates, and what cannot be excluded from being best."""
    columns = {id(cell): c for line in table.cells for cell, c in zip(line, table.columns, strict=True)}
    for first, others in bests:
        answers = [table.decisions.compare(contrast) for _, contrast in others]
        decides = columns[id(first[0])].primary or all(c.test == "exact" for c in answers)
        if not decides:
            continue
        for cell in first:
            cell.rank = 1
        present = [*first, *(cell for cell, _ in others)]
        beaten = any(cell.verdict == "better" for cell in present)
        for (cell, _), answer in zip(others, answers, strict=True):
            # What the table marks excludes too: worse than a baseline that is ranked, or a baseline beaten.
            with_baseline = any(c.verdict == "baseline" for c in present) and cell.verdict == "worse"
            excluded = answer.significant or with_baseline or (cell.verdict == "baseline" and beaten)
            cell.rank = 0 if excluded else 2


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
            if cell.itself:
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
    if found.high is None or found.low is None:
        return None
    # An interval cut at 0 or 1 is not symmetric: its longer side.
    return max(found.high - found.mean, found.mean - found.low)


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
    if many and (shared := results.shared_models()):
        lines.append(
            f"All seeds start from one {' and one '.join(shared)}: what is decided holds given this "
            "checkpoint; `reseed: all` would vary it."
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
    compared = [c for c in table.all_cells() if c.comparison]
    seeds = [c.comparison for c in compared if c.comparison and c.comparison.test == "simultaneous t"]
    items = [c.comparison for c in compared if c.comparison and c.comparison.test == "document bootstrap"]
    if seeds:
        lines.append(
            "▲ better, ▼ worse, ≈ not distinguishable from the baseline: simultaneous 95 % intervals of "
            "per-seed differences, variances pooled over configurations and guarded against unequal ones; "
            f"a family for each metric ({span(c.family for c in seeds)} comparisons)."
        )
    if any(c.comparison and c.comparison.test == "exact" for c in compared):
        lines.append(
            "Numbers that no seed moves and no sampling went into (= equal) are compared as they are."
        )
    if items:
        lines.append(
            "△ better, ▽ worse, ≃ not distinguishable, as fixed checkpoints only: bootstrap over documents, "
            f"simultaneous 95 % ({span(c.family for c in items)} comparisons); "
            "another seed may say otherwise."
        )
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


def span(sizes: Iterable[int]) -> str:
    """`12`, or `4 to 12`."""
    found = sorted(set(sizes))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def two_digits(value: float) -> str:
    """About two digits, never as a power of ten: 0.019, 4.5, 280."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def heading(column: Column) -> str:
    """A metric's heading: its label, else task and metric without what they repeat, and of which items."""
    if column.spec.label:
        return column.spec.label
    named = parts(column.info.name)
    *_, task, metric = (part for part in named if "=" not in part)
    words = metric if task in (metric, "perplexity", "efficiency") else f"{task} {metric}"
    return ", ".join([words, *(part for part in named if "=" in part)]).replace("_", " ")


def differs(cell: TableCell, column: Column) -> str:
    """The difference to the baseline with its interval; a dash for the baseline and where there is none."""
    c = cell.comparison
    if c is None or cell.verdict == "baseline":
        return "-"
    scale = column.spec.scale
    return difference_text(c.difference * scale, *(None if x is None else x * scale for x in (c.low, c.high)))


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
