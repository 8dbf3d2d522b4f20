"""`harness report`: from records to files and a table on the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, UnknownNameError
from harness.report.claims import Checked, check_all
from harness.report.comparability import comparable
from harness.report.figures import Figure, figures
from harness.report.frames import Results, arrange
from harness.report.layout import load_layout
from harness.report.page import page
from harness.report.records import Record, read, write_compact
from harness.report.samples import shown_items
from harness.report.table import Table, build
from harness.report.writers import FORMATS, WRITERS, escape_markdown, markdown, notes_markdown, terminal

if TYPE_CHECKING:
    from harness.sweep.plan import Plan


def report(
    experiment: str,
    *,
    table: str | Mapping[str, Any] | None = None,
    formats: Sequence[str] = FORMATS,
    out: Path | None = None,
    store: object = None,
    cells: Collection[str] | None = None,
    quiet: bool = False,
) -> Path:
    """Write the report of an experiment and print its table; returns the folder.

    `table` is a layout's name, path or content (default: the experiment's `report:`, else from its factors);
    `store` a Store, a folder or a committed `records.json.gz`; `cells` keeps only those records.
    Raises: DataError without records; UnknownNameError for a format, layout, factor or metric; ConfigError
    """
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError(what="report format", name=name, known=FORMATS)
    records = read(store, experiment, cells=cells)
    checked = comparable(records)
    results = arrange(checked.records)
    results.notes, results.marks = [*checked.notes, *results.notes], checked.marks
    layout = load_layout(table if table is not None else records[-1].experiment.get("report"))
    built = build(results, layout)
    claims = check_all(results, [*(records[-1].experiment.get("claims") or ()), *layout.claims])
    drawn = figures(built, results) if {"md", "html"} & set(formats) else []
    folder = Path(out) if out is not None else Path("reports") / default_folder(experiment, records)
    folder.mkdir(parents=True, exist_ok=True)
    write(built, results, folder, formats=formats, claims=claims, drawn=drawn)
    write_compact(records, folder / "records.json.gz", shown=shown_items(results.all_records()))
    if not quiet:
        show(built, folder, claims=claims)
    return folder


def default_folder(experiment: str, records: Sequence[Record]) -> str:
    """Name of the report's folder; a smoke test never overwrites a real report."""
    scales = {record.data["config"].get("scale") for record in records}
    return f"{experiment}.smoke" if scales == {"smoke"} else experiment


def main(arguments: Sequence[str]) -> int:
    """`harness report EXPERIMENT`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="harness report", description="Tables, figures and a page.")
    parser.add_argument("experiment", help="whose records to report")
    parser.add_argument("--table", help="a layout of conf/report, or a YAML file")
    parser.add_argument("--format", default=",".join(FORMATS), help=f"of {','.join(FORMATS)} (default: all)")
    parser.add_argument("--out", type=Path, help="folder (default: reports/EXPERIMENT)")
    parser.add_argument("--store", type=Path, help="a store, or a records.json.gz (default: the store)")
    asked = parser.parse_args(list(arguments))
    report(
        asked.experiment,
        table=asked.table,
        formats=[name for name in asked.format.split(",") if name],
        out=asked.out,
        store=asked.store,
    )
    return 0


def after_sweep(plan: Plan) -> None:
    """The report of a sweep that just ended, over its own cells; a fault in it loses no record."""
    try:
        report(plan.name, store=plan.graph.store, cells=[cell.cell.id for cell in plan.cells])
    except HarnessError as error:
        print(f"harness: no report: {error}", file=sys.stderr)


def write(
    table: Table,
    results: Results,
    folder: Path,
    *,
    formats: Sequence[str],
    claims: Sequence[Checked],
    drawn: Sequence[Figure],
) -> None:
    """The files of one report."""
    for name, (suffix, writer) in WRITERS.items():
        if name in formats:
            (folder / f"table.{suffix}").write_text(writer(table), encoding="utf-8")
    if drawn:
        (folder / "figures").mkdir(exist_ok=True)
    for figure in drawn:
        (folder / "figures" / f"{figure.name}.svg").write_text(figure.file, encoding="utf-8")
    if "md" in formats:
        (folder / "README.md").write_text(document(table, results, claims, drawn), encoding="utf-8")
    if "html" in formats:
        text = page(table, results, claims=claims, figures=drawn)
        (folder / "index.html").write_text(text, encoding="utf-8")


def document(table: Table, results: Results, claims: Sequence[Checked], drawn: Sequence[Figure]) -> str:
    """The report as one Markdown page."""
    records = results.all_records()
    question = str(records[-1].experiment.get("question") or "")
    parts = [
        f"# {table.title}\n",
        question + "\n" if question else "",
        markdown(table),
        notes_markdown(table),
    ]
    if claims:
        parts.append("## Claims\n")
        parts.append(claims_markdown(claims))
    parts += [
        f"## {f.title.rstrip('.')}\n\n![{f.title}](figures/{f.name}.svg)\n\n{f.caption}\n" for f in drawn
    ]
    return "\n".join(part for part in parts if part)


def claims_markdown(claims: Sequence[Checked]) -> str:
    """One line a claim."""
    lines = ["| claim | verdict | difference | rests on | source |", "|---|---|---:|---|---|"]
    for c in claims:
        number = "" if c.difference is None else f"{c.difference:+.3g}"
        number += "" if c.low is None or c.high is None else f" ({c.low:.3g} to {c.high:.3g})"
        said = f"{c.finding}<br>" if c.finding else ""
        text = escape_markdown(f"{said}`{c.text}`")
        lines.append(f"| {text} | {c.verdict} | {number} | {escape_markdown(c.reason)} | {c.source} |")
    return "\n".join(lines) + "\n"


def show(table: Table, folder: Path, *, claims: Sequence[Checked]) -> None:
    """Print the table, the claims and where the report lies."""
    from rich.console import Console

    console = Console()
    console.print(f"\n{table.title}", style="bold", highlight=False, markup=False)
    console.print(terminal(table, width=console.width))
    for line in table.caption:
        console.print(line, style="dim", highlight=False, markup=False)
    for i, note in enumerate(table.footnotes):
        console.print(f"[{i + 1}] {note}", style="dim", highlight=False, markup=False)
    colours = {"confirmed": "green", "refuted": "red", "undecided": "dim"}
    for claim in claims:
        console.print(f"{claim.verdict:<10}", style=colours[claim.verdict], end=" ")
        console.print(f"{claim.finding or claim.text} ({claim.reason})", highlight=False, markup=False)
    console.print(f"\nReport: {folder}", highlight=False, markup=False)
