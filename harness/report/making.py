"""Making a report: from records to a table with decisions, figures, and the files of a folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, DataError, UnknownNameError
from harness.report import published, reference
from harness.report.aggregates import Aggregates
from harness.report.arrange import arrange
from harness.report.claims import answer_all, ask_all, fitting
from harness.report.compact import RECORDS, write_compact
from harness.report.comparability import comparable
from harness.report.decisions import Decisions
from harness.report.document import Report, show, write
from harness.report.draw_scaling import scaling_curves
from harness.report.drawing import IMAGES, Figure
from harness.report.figures import figures
from harness.report.frames import Results
from harness.report.layout import Layout, load_layout, shipped
from harness.report.levels import rate_notes
from harness.report.overall import over_tasks, profiles
from harness.report.record import Record
from harness.report.records import read, store_root
from harness.report.scaling import Fitted, scaling
from harness.report.table import Table
from harness.report.tabulate import build
from harness.report.writers import FORMATS
from harness.store.records import sweep_name

PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a report is to be.

    Raises: UnknownNameError for a format or a comparison that does not exist
    """

    table: str | Mapping[str, Any] | None = None
    """A layout's name, path or content; else the experiment's `report:`, the layout of its name, or one made
    from its factors."""
    formats: Sequence[str] = FORMATS
    images: Sequence[str] = ()
    """Formats of figures beside SVG."""
    out: Path | None = None
    """Folder; `reports/NAME` below the store where null."""
    store: object = None
    """A Store, a folder or a committed `records.json.gz`."""
    cells: Collection[str] | None = None
    """Keeps only those records of the store."""
    records: Sequence[object] = ()
    """Where further records lie that join: other stores, committed reports or their files, archives."""
    compare: str | None = None
    """The survey's values stand beside ours where the layout has some at our places; `published` says so too
    where none has."""
    findings: Mapping[str, str] = field(default_factory=dict)
    """Words of claims by what they say in the grammar, in place of those that the records have."""

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UnknownNameError(what="report format", name=name, known=FORMATS)
        for name in self.images:
            if name not in IMAGES:
                raise UnknownNameError(what="figure format", name=name, known=IMAGES)
        if self.compare not in (None, PUBLISHED):
            raise UnknownNameError(what="comparison", name=str(self.compare), known=[PUBLISHED])


def report(experiment: str | None, *, quiet: bool = False, **options: Any) -> Path:
    """Write the report of an experiment, with the options of a Request, and print its table; its folder.

    A reference table needs no experiment.
    Raises: as `written`
    """
    asked = Request(**options)
    layout = load_layout(asked.table)
    if layout.reference:
        out = asked.out or default_folder("reference", asked.store)
        return reference_report(layout, out=out, formats=asked.formats, quiet=quiet)
    if not experiment:
        raise ConfigError(
            "harness report needs an experiment, or --table with a reference table (T5, T6, T7)"
        )
    made, folder = written(experiment, asked)
    if not quiet:
        show(made, folder)
    return folder


def written(experiment: str, asked: Request) -> tuple[Report, Path]:
    """Write the report of an experiment; returns it, and its folder.

    Raises: DataError without records; UnknownNameError for a layout, factor or metric; ConfigError
    """
    layout = load_layout(asked.table)
    if layout.reference:
        raise ConfigError(
            f"table={asked.table} is a reference table, of no records; `harness report --table` has it"
        )
    experiment = sweep_name(experiment)
    records = read(asked.store, experiment, cells=asked.cells, beside=asked.records)
    results = results_of(records)
    if asked.table is None:
        layout = own_layout(experiment, records[-1], results)
    beside = published.beside(layout, results) if asked.compare or layout.published else None
    if not asked.compare and not beside:
        beside = None  # nobody asked, and none of its rows has a place here
    decisions = Decisions(results)
    stated = [_worded(claim, asked.findings) for claim in records[-1].experiment.get("claims") or ()]
    claims = ask_all(decisions, [*stated, *fitting(decisions, layout.claims)])
    law = law_of(results, layout)
    built = build(results, layout, decisions)
    together = over_tasks(built, results)
    made = Report(
        table=built,
        results=results,
        claims=answer_all(decisions, claims, built),
        figures=drawn(built, results, together, law) if {"md", "html"} & set(asked.formats) else [],
        beside=beside,
        over_tasks=together,
        law=law,
    )
    folder = Path(asked.out) if asked.out is not None else default_folder(experiment, asked.store)
    write(made, folder, formats=asked.formats, images=asked.images)
    root = store_root(asked.store)
    if root != folder / RECORDS or asked.records:
        roots = [root, *map(store_root, asked.records)]
        write_compact(records, folder / RECORDS, shown=results.shown, roots=roots)
    return made, folder


def _worded(claim: Any, findings: Mapping[str, str]) -> Any:
    """A claim in the words that are in use; what it asserts stays as the records have it."""
    if not isinstance(claim, Mapping) or claim.get("says") not in findings:
        return claim
    return {**claim, "finding": findings[claim["says"]]}


def law_of(results: Results, layout: Layout) -> Fitted | None:
    """The scaling law that a layout asks for; a sweep that is too small for one says so in its notes."""
    if not layout.scaling:
        return None
    try:
        return scaling(results, layout.scaling)
    except DataError as error:
        results.notes.append(f"No scaling law: {error}.")
        return None


def drawn(table: Table, results: Results, together: Aggregates | None, law: Fitted | None) -> list[Figure]:
    """Every view that these records allow."""
    made = [*figures(table, results), profiles(together, results), scaling_curves(results, law)]
    return [figure for figure in made if figure is not None]


def results_of(records: Sequence[Record]) -> Results:
    """Records arranged, with what may not stand in one table refused and what drifted noted."""
    checked = comparable(records)
    results = arrange(checked.records)
    finished = [record for record in checked.records if record.status == "ok"]
    results.notes = [*checked.notes, *rate_notes(finished), *results.notes]
    results.marks = checked.marks
    return results


def own_layout(experiment: str, record: Record, results: Results) -> Layout:
    """The layout an experiment asks for, else the shipped one of its name if its factors are these.

    Nobody asked for its columns one by one: those that nothing here measured are left out, with a footnote.
    """
    asked = record.experiment.get("report")
    if asked is not None:
        return _measured(load_layout(asked), results)
    if experiment in shipped():
        found = load_layout(experiment)
        if {*found.rows, *found.columns} <= set(results.factors):
            return _measured(found, results)
    return Layout()


def _measured(layout: Layout, results: Results) -> Layout:
    """A layout without the columns of metrics that these records do not hold."""
    kept, lacking = [], []
    for column in layout.metrics:
        try:
            results.resolve(column.metric)
            kept.append(column)
        except UnknownNameError:
            lacking += [] if column.optional else [column.metric]
    text = f"Left out, as nothing here measured them: {', '.join(lacking)}."
    notes = (*layout.footnotes, *([text] if lacking else ()))
    return replace(layout, metrics=tuple(kept), footnotes=notes)


def reference_report(layout: Layout, *, out: Path, formats: Sequence[str], quiet: bool) -> Path:
    """A table of what exists; it needs no records."""
    folder = reference.write(layout, Path(out), formats)
    if not quiet:
        reference.show(layout)
        print(f"Report: {folder}")
    return folder


def default_folder(experiment: str, store: object) -> Path:
    """`reports/NAME` below the store, which git does not track: committed reports change by `--committed` and
    `--out` alone. Beside a committed file of records, as no store is known, that of the environment.
    """
    root = store_root(store)
    return (store_root() if root.is_file() else root) / "reports" / experiment
