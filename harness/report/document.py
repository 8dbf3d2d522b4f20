"""A report as files: one Markdown page, a table in each format, figures, the page; and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.plan.table8 import planned
from harness.report import levels, overall, published, ratings, scaling
from harness.report.aggregates import Aggregates
from harness.report.claims import Checked, sentence
from harness.report.drawing import IMAGES, Figure
from harness.report.frames import Results
from harness.report.latex import latex
from harness.report.page import PLANNED, page
from harness.report.table import Table
from harness.report.terminal import terminal
from harness.report.writers import (
    as_csv,
    as_json,
    code_markdown,
    differences_markdown,
    escape_markdown,
    escape_tags,
    markdown,
    notes_markdown,
)
from harness.store.files import write_whole

WRITERS: Mapping[str, tuple[str, Callable[[Table], str]]] = {
    "latex": ("tex", latex),
    "csv": ("csv", as_csv),
    "json": ("json", as_json),
}
"""Format -> suffix and writer of one table; `md` and `html` are whole documents."""


DIFFERENCES = "Differences to the baseline"
"""Heading of the paired view."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says."""

    table: Table
    results: Results
    claims: Sequence[Checked] = ()
    figures: Sequence[Figure] = ()
    beside: list[published.Beside] | None = field(default=None)
    """Published values beside ours, where they were asked for."""
    over_tasks: Aggregates | None = None
    """All tasks together, where there are several."""
    law: scaling.Fitted | None = None
    """The scaling law, where the layout asks for one."""


def write(made: Report, folder: Path, *, formats: Sequence[str], images: Sequence[str] = ()) -> None:
    """The files of one report; figures of an earlier one do not stay. `images` are formats beside SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (suffix, writer) in WRITERS.items():
        if name in formats:
            write_whole(folder / f"table.{suffix}", writer(made.table))
    if made.figures:
        (folder / "figures").mkdir(exist_ok=True)
    for figure in made.figures:
        write_whole(folder / "figures" / f"{figure.name}.svg", figure.file)
        for kind in images:
            write_whole(folder / "figures" / f"{figure.name}.{kind}", figure.render(kind))
    if made.figures:
        new = {f"{figure.name}.{kind}" for figure in made.figures for kind in ("svg", *images)}
        for old in (folder / "figures").iterdir():
            if old.suffix in (".svg", *(f".{kind}" for kind in IMAGES)) and old.name not in new:
                old.unlink()
    if made.beside is not None and "json" in formats:
        text = json.dumps(published.as_data(made.beside), indent=1, ensure_ascii=False)
        write_whole(folder / "published.json", text + "\n")
    if "md" in formats:
        write_whole(folder / "README.md", document(made))
    if "html" in formats:
        text = page(
            made.table,
            made.results,
            claims=made.claims,
            figures=made.figures,
            beside=made.beside,
            over_tasks=made.over_tasks,
            law=made.law,
        )
        write_whole(folder / "index.html", text)


def document(made: Report) -> str:
    """The report as one Markdown page."""
    table = made.table
    question = str(made.results.all_records()[-1].experiment.get("question") or "")
    parts = [
        f"# {escape_tags(table.title)}\n",
        escape_tags(question) + "\n" if question else "",
        *(f"**Answer.** {escape_tags(sentence(c))}\n" for c in made.claims if c.answers),
        markdown(table),
        notes_markdown(table),
    ]
    if any(cell.comparison for cell in table.all_cells()):
        parts += [f"## {DIFFERENCES}\n", differences_markdown(table)]
    if made.claims:
        parts += ["## Claims\n", claims_markdown(made.claims)]
    if (sets := levels.as_text(made.results, table.layout)) is not None:
        parts += [f"## {levels.TITLE}\n", texts_markdown(*sets, numbers=3)]
    if made.law is not None:
        parts += [
            f"## {scaling.TITLE}\n",
            texts_markdown(*scaling.as_text(made.law, made.results), numbers=1),
        ]
    if made.over_tasks is not None:
        texts = overall.as_text(made.over_tasks, table, made.results)
        parts += [f"## {overall.TITLE}\n", texts_markdown(*texts, numbers=len(made.results.factors))]
    rated = ratings.as_text(ratings.ratings(made.results, ratings.win_rate_samples(made.results)))
    if rated is not None:
        parts += [f"## {ratings.TITLE}\n", texts_markdown(*rated, numbers=1)]
    if made.beside is not None:
        parts += ["## Beside the published values\n", published.markdown(made.beside, table.layout)]
    if table.layout.planned:
        parts += [f"## {PLANNED}\n", texts_markdown(*planned(), numbers=1)]
    for f in made.figures:
        title, caption = escape_tags(f.title), escape_tags(f.caption)
        parts.append(f"## {title.rstrip('.')}\n\n![{title}](figures/{f.name}.svg)\n\n{caption}\n")
    return "\n".join(part for part in parts if part)


def texts_markdown(
    heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], *, numbers: int
) -> str:
    """A table of text with its notes; columns from the one at place `numbers` on hold numbers."""
    lines = ["| " + " | ".join(map(escape_markdown, heads)) + " |"]
    lines.append("|" + "---|" * numbers + "---:|" * (len(heads) - numbers))
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {escape_markdown(note)}" for note in notes)]) + "\n"


def claims_markdown(claims: Sequence[Checked]) -> str:
    """One line a claim."""
    lines = ["| claim | verdict | difference | rests on | source |", "|---|---|---:|---|---|"]
    for c in claims:
        said = f"{escape_markdown(c.finding)}<br>" if c.finding else ""
        reason, source, number = map(escape_markdown, (c.reason, c.source, c.number))
        lines.append(f"| {said}{code_markdown(c.text)} | {c.said} | {number} | {reason} | {source} |")
    return "\n".join(lines) + "\n"


def show(made: Report, folder: Path) -> None:
    """Print the table, the claims and where the report lies."""
    from rich.console import Console

    console, table = Console(), made.table
    console.print(f"\n{table.title}", style="bold", highlight=False, markup=False)
    console.print(terminal(table, width=console.width))
    for line in table.caption:
        console.print(line, style="dim", highlight=False, markup=False)
    for i, note in enumerate(table.footnotes):
        console.print(f"[{i + 1}] {note}", style="dim", highlight=False, markup=False)
    colours = {"confirmed": "green", "refuted": "red", "undecided": "dim"}
    for claim in made.claims:
        console.print(f"{claim.verdict:<10}", style=colours[claim.verdict], end=" ")
        reason = "; ".join(filter(None, (claim.rates, claim.reason)))
        console.print(f"{claim.finding or claim.text} ({reason})", highlight=False, markup=False)
    page = folder / "index.html"
    shown = page if page.is_file() else folder
    console.print(f"\nReport: {shown}", highlight=False, markup=False, soft_wrap=True)
