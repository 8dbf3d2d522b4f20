"""A table as Markdown, CSV, JSON and HTML; LaTeX and the terminal have files of their own."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.report.frames import NOT_IN_SWEEP, column_of
from harness.report.table import Column, Table, TableCell, differs, heading, sign


def arrow(column: Column, table: Table) -> str:
    if not table.layout.arrows or column.higher_is_better is None:
        return ""
    return " ↑" if column.higher_is_better else " ↓"


def title_of(column: Column, table: Table) -> str:
    """Heading with unit and direction."""
    unit = column.unit
    text = heading(column)
    return text + (f" ({unit})" if unit and unit not in text else "") + arrow(column, table)


def over(column: Column, table: Table) -> list[str]:
    """Levels above a metric column, outermost first."""
    return [table.layout.text(level) for level in column.where.values()]


def reference_marks(cell: TableCell) -> str:
    return "".join(f"[{i + 1}]" for i in cell.notes)


def why_missing(cell: TableCell) -> str:
    """The reason an empty cell shows, shortened; a dash where the sweep has no such cell."""
    if cell.missing == [NOT_IN_SWEEP]:
        return "-"
    reasons = list(dict.fromkeys(line.partition(": ")[2] or line for line in cell.missing))
    return "; ".join(reasons)[:90]


def labels_of(row: Mapping[str, str], table: Table) -> list[str]:
    return [table.layout.text(level) for level in row.values()]


def dimmed(table: Table) -> Iterator[tuple[list[str], list[bool], bool]]:
    """Row labels, which of them repeat the row above, and whether a group starts."""
    previous: list[str] = []
    for row in table.rows:
        labels = labels_of(row, table)
        same = [labels[: i + 1] == previous[: i + 1] for i in range(len(labels))]
        group = table.layout.group
        starts = (
            bool(previous)
            and group in row
            and labels[list(row).index(group)] != previous[list(row).index(group)]
        )
        yield labels, same, starts
        previous = labels


def markdown(table: Table) -> str:
    """GitHub's Markdown: bold best, underlined what may be best, marks and footnotes."""
    return markdown_of(table, lambda cell, _: markdown_cell(cell))


def differences_markdown(table: Table) -> str:
    """The same table of paired differences to the baseline: intervals of numbers hide small ones."""

    def shown(cell: TableCell, column: Column) -> str:
        return " ".join(filter(None, (differs(cell, column), sign(cell))))

    return markdown_of(table, shown)


def markdown_of(table: Table, shown_cell: Callable[[TableCell, Column], str]) -> str:
    """A table of Markdown, each cell written by `shown_cell`."""
    factors = [table.layout.text(f) for f in table.rows[0]] or [""]
    heads = [[f] for f in factors] + [[*over(c, table), title_of(c, table)] for c in table.columns]
    lines = [
        "| " + " | ".join("<br>".join(map(label_markdown, parts)) for parts in heads) + " |",
        "|" + "---|" * len(factors) + "---:|" * len(table.columns),
    ]
    for (labels, same, _), cells in zip(dimmed(table), table.cells, strict=True):
        shown = ["" if s else label_markdown(text) for text, s in zip(labels, same, strict=True)] or [""]
        numbers = [shown_cell(cell, column) for cell, column in zip(cells, table.columns, strict=True)]
        lines.append("| " + " | ".join(shown + numbers) + " |")
    return "\n".join(lines) + "\n"


def markdown_cell(cell: TableCell) -> str:
    if cell.estimate is None:
        return f"*{label_markdown(why_missing(cell))}*"
    value = {1: f"**{cell.value}**", 2: f"<u>{cell.value}</u>"}.get(cell.rank, cell.value)
    spread = f" ±{cell.spread}" if cell.spread else ""
    mark = sign(cell)
    return value + spread + (f" {mark}" if mark else "") + reference_marks(cell)


def label_markdown(text: str) -> str:
    """A label in a table of Markdown, where every character of it means itself."""
    alone = r"(?<![^\W_])_|_(?![^\W_])"  # inside a word it emphasises nothing
    return (
        re.sub(rf"[\\`*\[\]$~|]|{alone}", r"\\\g<0>", _without_tags(text))
        .replace("\n", " ")
        .replace("](", "]\\(")
    )


def escape_markdown(text: str) -> str:
    """Text in a table of Markdown."""
    # A backslash before a bar would be escaped by the one that escapes the bar.
    bare = re.sub(r"\\+(?=\|)", lambda found: 2 * found[0], text)
    return escape_tags(bare).replace("|", "\\|")


def escape_tags(text: str) -> str:
    """Text in a line of Markdown, none of which is HTML, a link or an image.

    What a record or an experiment says runs in no browser, and fetches nothing.
    """
    return _without_tags(text).replace("](", "]\\(").replace("\n", " ")


def _without_tags(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))


def code_markdown(text: str) -> str:
    """Text as code in a table of Markdown, where nothing but its own end means anything."""
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def notes_markdown(table: Table) -> str:
    lines = [f"- {escape_tags(line)}" for line in table.caption]
    lines += [f"- [{i + 1}] {escape_markdown(note)}" for i, note in enumerate(table.footnotes)]
    return "\n".join(lines) + "\n"


def header_spans(columns: Sequence[Column], table: Table, depth: int) -> list[tuple[str, int]]:
    """Headings of one header line with how many of the columns each covers."""
    keys = [over(c, table)[: depth + 1] for c in columns]
    return [(key[-1], len(list(same))) for key, same in itertools.groupby(keys)]


COLUMNS = (
    *("metric", "unit", "mean", "low", "high", "sd_over_seeds", "stderr_over_items", "interval_over"),
    *("seeds", "items", "verdict", "about", "test", "difference", "difference_low", "difference_high", "p"),
    *("family", "detectable", "undecided_because", "rank", "missing", "cells"),
)
"""Columns of CSV and JSON beside the factors; a factor called so has `factor.` before it."""


def flat(table: Table) -> list[dict[str, Any]]:
    """One row a cell with everything known of it; the content of CSV and JSON."""
    rows = []
    for line in table.cells:
        for cell, column in zip(line, table.columns, strict=True):
            e, c = cell.estimate, cell.comparison
            rows.append(
                {
                    **{column_of(factor, COLUMNS): level for factor, level in cell.where.items()},
                    "metric": column.info.name,
                    "unit": column.info.unit,
                    "mean": number(e.mean) if e else None,
                    "low": number(e.low) if e else None,
                    "high": number(e.high) if e else None,
                    "sd_over_seeds": number(e.sd) if e else None,
                    "stderr_over_items": number(e.stderr) if e else None,
                    "interval_over": e.basis if e else None,
                    "seeds": e.num_seeds if e else 0,
                    "items": e.num_items if e else 0,
                    "verdict": cell.verdict,
                    "about": c.about if c else None,
                    "test": c.test if c else None,
                    "difference": number(c.difference) if c else None,
                    "difference_low": number(c.low) if c else None,
                    "difference_high": number(c.high) if c else None,
                    "p": number(c.p) if c else None,
                    "family": c.family if c else 0,
                    "detectable": number(c.detectable) if c else None,
                    "undecided_because": c.reason if c else "",
                    "rank": cell.rank,
                    "missing": "; ".join(cell.missing),
                    "cells": " ".join(cell.cells),
                }
            )
    return rows


def number(value: float | None) -> float | None:
    """A number to 6 digits, so that a last bit of another machine changes no file; NaN is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def as_csv(table: Table) -> str:
    """One line a cell (tidy), so that any statistics program can read it."""
    rows = flat(table)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json(table: Table) -> str:
    content = {
        "title": table.title,
        "baseline": table.baseline,
        "caption": table.caption,
        "footnotes": table.footnotes,
        "cells": flat(table),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_html(table: Table) -> str:
    """A plain HTML table, to paste somewhere; the page has its own."""
    num_labels = max(1, len(table.rows[0]))
    head = []
    for depth in range(len(table.layout.columns)):
        spans = "".join(
            f'<th colspan="{n}">{html.escape(t)}</th>' for t, n in header_spans(table.columns, table, depth)
        )
        head.append(f'<tr><th colspan="{num_labels}"></th>{spans}</tr>')
    names = [table.layout.text(f) for f in table.rows[0]] or [""]
    titles = [*names, *(title_of(c, table) for c in table.columns)]
    head.append("<tr>" + "".join(f"<th>{html.escape(t)}</th>" for t in titles) + "</tr>")
    body = []
    for row, cells in zip(table.rows, table.cells, strict=True):
        labels = "".join(f"<th>{html.escape(t)}</th>" for t in labels_of(row, table) or [""])
        body.append("<tr>" + labels + "".join(html_cell(c) for c in cells) + "</tr>")
    notes = "".join(f"<p>{html.escape(t)}</p>" for t in [*table.caption, *table.footnotes])
    return f"<table><thead>{''.join(head)}</thead><tbody>{''.join(body)}</tbody></table>{notes}\n"


def html_cell(cell: TableCell) -> str:
    if cell.estimate is None:
        return f"<td><em>{html.escape(why_missing(cell))}</em></td>"
    value = {1: f"<b>{cell.value}</b>", 2: f"<u>{cell.value}</u>"}.get(cell.rank, cell.value)
    spread = f" <small>±{cell.spread}</small>" if cell.spread else ""
    return f"<td>{value}{spread} {sign(cell)}{reference_marks(cell)}</td>"


FORMATS: Sequence[str] = ("md", "latex", "html", "csv", "json")
