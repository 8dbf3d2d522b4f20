"""What each cell of a table is said to be: against the baseline, and among the best of its column."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from harness.report.contrasts import Comparison, Contrast
from harness.report.statistics import MIN_SEEDS
from harness.report.table import Column, Table, TableCell, Verdict

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
        num_seeds = len(table.decisions.results.seeds)
        if text := cell.comparison.divergence(num_seeds, other="the baseline"):
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
        return "differs" if column.primary else "secondary"
    if not comparison.holds(above=comparison.difference > 0, higher_is_better=column.higher_is_better):
        return "undecided"
    return "better" if (comparison.difference > 0) == column.higher_is_better else "worse"


Ranked = tuple[list[TableCell], list[tuple[TableCell, Contrast]]]


def contrasts_to_best(table: Table) -> list[Ranked]:
    """By column and group: the cells with the highest estimate, and the others' contrasts to it.

    Only complete cells are ranked: the mean of fewer seeds is not set against that of all; nor is what was
    measured against itself.
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
            present = [c for c in cells if c.estimate is not None and not c.missing and not c.itself]
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
            untested = answer.low is None and answer.test != "exact"
            cell.rank = 0 if excluded or untested else 2
