"""`harness report`, and the report that follows a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, HarnessError, StoreFullError
from harness.report import freshness
from harness.report.committed import rebuild
from harness.report.drawing import IMAGES
from harness.report.making import default_folder, report
from harness.report.records import read
from harness.report.writers import FORMATS
from harness.store.records import sweep_name

if TYPE_CHECKING:
    from harness.plan.plan import Plan

PAGE = "index.html"


def main(arguments: Sequence[str]) -> int:
    """`harness report EXPERIMENT`, or `harness report --committed`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="harness report", description="Tables, figures and a page.")
    parser.add_argument("experiment", nargs="?", help="whose records to report; reference tables need none")
    parser.add_argument("--table", help="a layout of conf/report, its number in the survey, or a YAML file")
    parser.add_argument("--format", default=",".join(FORMATS), help=f"of {','.join(FORMATS)} (default: all)")
    parser.add_argument("--figures", default="", help=f"write figures as {','.join(IMAGES)} too, beside SVG")
    parser.add_argument("--out", type=Path, help="folder (default: reports/EXPERIMENT below the store)")
    parser.add_argument("--store", type=Path, help="a store, or a records.json.gz (default: the store)")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        dest="records",
        help="records that join those of the store: of another store, a committed report or its "
        "records.json.gz, or an archive of `harness store export`; may be given several times",
    )
    parser.add_argument("--compare", help="published: the survey's values beside ours")
    parser.add_argument(
        "--committed",
        action="store_true",
        help="rebuild the reports below --out (default: reports) from the records beside them; run nothing",
    )
    asked = parser.parse_args(list(arguments))
    formats = [name for name in asked.format.split(",") if name]
    if asked.committed:
        if asked.records:
            name = asked.experiment or "NAME"
            folder = (asked.out or Path("reports")) / name
            raise ConfigError(
                "--committed makes reports of the records beside them alone; to join others to these, use "
                f"`harness report {name} --with {folder} --out {folder}`"
            )
        only = asked.experiment and sweep_name(asked.experiment)
        for folder in rebuild(asked.out or Path("reports"), only=only, formats=formats):
            print(f"Report: {folder}")
        return 0
    report(
        asked.experiment,
        table=asked.table,
        formats=formats,
        images=[name for name in asked.figures.split(",") if name],
        out=asked.out,
        store=asked.store,
        compare=asked.compare,
        records=asked.records,
    )
    return 0


def after_sweep(plan: Plan) -> None:
    """The report of a sweep that just ended, over its own cells; a fault in it loses no record.

    One that was made of the same records by the same code stays as it is.
    """
    cells, store = [cell.cell.id for cell in plan.cells], plan.graph.store
    try:
        records = read(store, plan.name, cells=cells)
        if not any(record.data["metrics"] for record in records):
            print("harness: no report: no cell measured anything", file=sys.stderr)
            return
        made_of = freshness.inputs(records, store.root)
        folder = default_folder(plan.name, store)
        if freshness.holds(folder, made_of=made_of, root=store.root):
            print(f"Report: {folder / PAGE} (nothing changed since it was made)")
            return
        report(plan.name, store=store, cells=cells)
        freshness.remember(folder, made_of=made_of, root=store.root)
        from harness.run.lifecycle import tell_report

        tell_report(plan, folder, warn=lambda text: print(f"harness: {text}", file=sys.stderr))
    except StoreFullError:
        raise
    except HarnessError as error:
        print(f"harness: no report: {error}", file=sys.stderr)
