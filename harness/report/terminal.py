"""A table on the terminal, which may be too narrow for it: levels on top become rows, words break."""

from __future__ import annotations

import itertools
from typing import Any

from harness.report.frames import NOT_IN_SWEEP
from harness.report.table import Column, Table, TableCell, sign
from harness.report.writers import labels_of, over, reference_marks, title_of, why_missing


def terminal(table: Table, *, width: int) -> Any:
    """The table for rich's console: as laid out where it fits, else the levels on top become rows."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    folded = terminal_width(table) > width
    lines: list[tuple[list[str], list[TableCell | None]]]
    if folded and table.layout.columns:
        factors, lines = unfolded(table)
        titles = [title_of(c, table) for c in distinct_metrics(table)]
    else:
        factors = list(table.rows[0])
        lines = [
            (labels_of(row, table), list(cells)) for row, cells in zip(table.rows, table.cells, strict=True)
        ]
        titles = [
            " ".join([*(o.replace(" ", "\xa0") for o in over(c, table)), title_of(c, table)])
            for c in table.columns
        ]
    for i, factor in enumerate(factors or [""]):
        longest = max((len(labels[i]) for labels, _ in lines if labels), default=0)
        shown.add_column(Text(table.layout.text(factor)), no_wrap=True, min_width=min(longest, 24))
    for title in titles:
        # A word a line: narrow columns, and numbers that never break.
        words = [part for word in title.split() for part in (broken(word) if folded else [word])]
        shown.add_column(Text("\n".join(words)), justify="right", no_wrap=True)
    previous: list[str] = []
    for labels, cells in lines:
        if previous and len(labels) > 1 and labels[0] != previous[0]:
            shown.add_section()
        same = [labels[: i + 1] == previous[: i + 1] for i in range(len(labels))]
        styled = [Text("" if s else text) for text, s in zip(labels, same, strict=True)] or [Text("")]
        shown.add_row(*styled, *(terminal_cell(c, folded=folded) for c in cells))
        previous = labels
    return shown


def broken(word: str, width: int = 9) -> list[str]:
    """A long word in pieces: `instruc-`, `tions`; `(bits/`, `byte)`."""
    if len(word) <= width:
        return [word]
    head, slash, tail = word.partition("/")
    if slash and tail:
        return [*broken(head + slash, width), *broken(tail, width)]
    return [word[: width - 2] + "-", *broken(word[width - 2 :], width)]


def terminal_width(table: Table) -> int:
    """Characters that the table needs on one line."""
    columns = [
        max(len(title_of(c, table)), *(len(line[j].text) + 4 for line in table.cells))
        for j, c in enumerate(table.columns)
    ]
    return sum(columns) + 3 * len(columns) + 12 * len(table.rows[0])


def distinct_metrics(table: Table) -> list[Column]:
    """One column for each metric, whatever the levels above it."""
    found: dict[str, Column] = {}
    for column in table.columns:
        found.setdefault(column.info.name, column)
    return list(found.values())


def unfolded(table: Table) -> tuple[list[str], list[tuple[list[str], list[TableCell | None]]]]:
    """Factors and lines of the table with the levels above its columns moved into the rows.

    A metric that is left out under some level has None there
    """
    lines: list[tuple[list[str], list[TableCell | None]]] = []
    names = [column.info.name for column in distinct_metrics(table)]
    for row, cells in zip(table.rows, table.cells, strict=True):
        pairs = zip(table.columns, cells, strict=True)
        for _, same in itertools.groupby(pairs, key=lambda pair: list(pair[0].where.items())):
            block = list(same)
            found = {column.info.name: cell for column, cell in block}
            if any(cell.missing != [NOT_IN_SWEEP] for cell in found.values()):
                labels = labels_of({**row, **block[0][0].where}, table)
                lines.append((labels, [found.get(name) for name in names]))
    return [*table.rows[0], *table.columns[0].where], lines


def terminal_cell(cell: TableCell | None, *, folded: bool) -> Any:
    """A number with its marks; its interval beside it, or below where space is short."""
    from rich.text import Text

    if cell is None:
        return Text("")
    if cell.estimate is None:
        return Text(why_missing(cell).partition(":")[0], style="dim italic")
    text = Text(cell.value, style={1: "bold", 2: "underline"}.get(cell.rank, ""))
    spread = f"±{cell.spread}" if cell.spread else ""
    if spread and not folded:
        text.append(f" {spread}", style="dim")
    style = {"better": "green", "worse": "red"}.get(cell.verdict, "dim")
    text.append(f" {sign(cell)}" if sign(cell) else "", style=style)
    text.append(reference_marks(cell), style="dim")
    return text.append(f"\n{spread}", style="dim") if spread and folded else text
