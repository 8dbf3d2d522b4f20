"""The table: every cell an estimate, a comparison to the baseline, a rank, or a reason why it is empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.report.contrasts import Comparison
from harness.report.decisions import Decisions
from harness.report.frames import MetricInfo
from harness.report.layout import Layout, MetricColumn
from harness.report.numbers import difference_text
from harness.report.quantities import parts
from harness.report.statistics import Estimate, Measured

Verdict = Literal[
    "baseline", "better", "worse", "tie", "differs", "undecided", "secondary", "untested", "missing"
]
"""`differs` where no direction is better."""
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
        return self.info.higher_is_better

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


def decided_on(table: Table) -> list[str]:
    """The metrics of a table that verdicts are given on and that have a better direction."""
    return [c.info.name for c in table.columns if c.primary and c.higher_is_better is not None]


def heading(column: Column) -> str:
    """A metric's heading: its label, else task and metric without what they repeat, and of which items."""
    if column.spec.label:
        return column.spec.label
    named = parts(column.info.name)
    *_, task, metric = (part for part in named if "=" not in part)
    said = task in (metric, "perplexity", "efficiency") or metric.startswith(f"{task.removesuffix('s')}_")
    words = metric if said else f"{task} {metric}"
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
    ("differs", "methods"): "≠",
    ("better", "checkpoints"): "△",
    ("worse", "checkpoints"): "▽",
    ("tie", "checkpoints"): "≃",
    ("differs", "checkpoints"): "≄",
}


def sign(cell: TableCell) -> str:
    """The mark of a cell's verdict; none beside a number that is a matter of course."""
    if cell.itself:
        return ""
    if cell.verdict == "undecided":
        return "?"
    if cell.verdict == "tie" and cell.comparison and cell.comparison.test == "exact":
        return "="
    about = cell.comparison.about if cell.comparison else "nothing"
    return MARKS.get((cell.verdict, about), "")


def metric_columns(table: Table) -> list[Column]:
    """One column for each metric of the table that has a better direction."""
    found = {c.info.name: c for c in reversed(table.columns) if c.higher_is_better is not None}
    return list(reversed(found.values()))
