"""`harness report`: from records to files and a table on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UnknownNameError
from harness.report.comparability import comparable
from harness.report.frames import Results, arrange
from harness.report.layout import load_layout
from harness.report.records import Record, read, write_compact
from harness.report.table import Table, build
from harness.report.writers import FORMATS, WRITERS, markdown, notes_markdown, terminal


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
    folder = Path(out) if out is not None else Path("reports") / experiment
    folder.mkdir(parents=True, exist_ok=True)
    write(built, results, folder, formats=formats)
    write_compact(records, folder / "records.json.gz")
    if not quiet:
        show(built, folder)
    return folder


def write(table: Table, results: Results, folder: Path, *, formats: Sequence[str]) -> None:
    """The files of one report."""
    for name, (suffix, writer) in WRITERS.items():
        if name in formats:
            (folder / f"table.{suffix}").write_text(writer(table), encoding="utf-8")
    if "md" in formats:
        (folder / "README.md").write_text(document(table, results.all_records()), encoding="utf-8")


def document(table: Table, records: Sequence[Record]) -> str:
    """The report as one Markdown page."""
    question = str(records[-1].experiment.get("question") or "")
    parts = [
        f"# {table.title}\n",
        question + "\n" if question else "",
        markdown(table),
        notes_markdown(table),
    ]
    return "\n".join(part for part in parts if part)


def show(table: Table, folder: Path) -> None:
    """Print the table and where the report lies."""
    from rich.console import Console

    console = Console()
    console.print(terminal(table, width=console.width))
    for line in table.caption:
        console.print(line, style="dim", highlight=False)
    for i, note in enumerate(table.footnotes):
        console.print(f"[{i + 1}] {note}", style="dim", highlight=False, markup=False)
    console.print(f"\nReport: {folder}", highlight=False)
