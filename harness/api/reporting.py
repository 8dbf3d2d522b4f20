"""`harness.records` and `harness.report`: what cells yielded, as a frame, and as a table with decisions."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.errors import ConfigError
from harness.report.document import Report
from harness.report.making import Request, written
from harness.report.measurements import load
from harness.report.writers import FORMATS, as_html, flat

if TYPE_CHECKING:
    from harness.store import Store


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A report that was written; Jupyter shows its table."""

    folder: Path
    """Where its files lie: README.md, index.html, table.csv, table.tex, table.json, figures/."""
    content: Report
    """The table with its layout, the claims with their verdicts, the figures."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row a number: levels, metric, mean, interval, comparison with the baseline, verdict, cells."""
        return pd.DataFrame(flat(self.content.table))

    @property
    def claims(self) -> pd.DataFrame:
        """One row a claim: finding, verdict (confirmed, refuted, undecided), reason and source."""
        names = ("finding", "text", "verdict", "difference", "low", "high", "reason", "source")
        rows = [{name: getattr(claim, name) for name in names} for claim in self.content.claims]
        return pd.DataFrame(rows, columns=list(names))

    def _repr_html_(self) -> str:
        return f"<h4>{html.escape(self.content.table.title)}</h4>{as_html(self.content.table)}"

    def __repr__(self) -> str:
        return f"Report of {self.content.results.name}: {self.folder}"


def records(
    experiment: str | pd.DataFrame,
    *,
    store: Store | Path | str | None = None,
    cells: Sequence[str] | None = None,
    records: Sequence[Store | Path | str] = (),
) -> pd.DataFrame:
    """All measurements of an experiment: one row a cell and metric.

    Columns: the factors' levels, sweep, cell, seed, outcome, reason, evaluator, task, metric, value, unit,
    stderr (over the n items), n, higher_is_better, and all facts as `<stage>.<fact>`. A cell without numbers
    has one row that says why. `experiment` is the name of an experiment or sweep, or a frame of its cells;
    `store` a store, its folder, or a committed `records.json.gz`; `cells` keeps only those ids.
    `records` are places of further ones, as for `harness.report`.
    Units: those of the column `unit`
    Raises: DataError if there are no records, naming the experiments that have some; ConfigError for what
    names no experiment
    """
    return load(store, sweep_of(experiment), cells=cells, beside=records)


def report(
    experiment: str | pd.DataFrame,
    *,
    table: str | Mapping[str, Any] | None = None,
    formats: Sequence[str] = FORMATS,
    images: Sequence[str] = (),
    out: Path | str | None = None,
    compare: str | None = None,
    store: Store | Path | str | None = None,
    records: Sequence[Store | Path | str] = (),
) -> Reported:
    """Write the report of an experiment, and return it; Jupyter shows its table.

    `experiment` is a name, or a frame that `harness.sweep` returned, whose cells alone are then reported;
    `table` a layout's name, path or content; `out` a folder (default: reports/NAME below the store);
    `images` formats of figures beside SVG; `compare="published"` puts the survey's values beside ours.
    `records` are places whose records join those of `store`: another store, a committed report or its
    `records.json.gz`, an archive of `harness store export`.
    Units: as each column says; intervals hold 95 % of the time
    Raises: DataError without records; UnknownNameError for a format, layout, factor or metric; ConfigError
    """
    name = sweep_of(experiment)
    asked = Request(
        table=table,
        formats=formats,
        images=images,
        out=None if out is None else Path(out),
        store=store,
        cells=None if isinstance(experiment, str) else _cells(experiment),
        compare=compare,
        records=records,
    )
    made, folder = written(name, asked)
    return Reported(folder=folder, content=made)


def sweep_of(experiment: str | pd.DataFrame) -> str:
    """The name of a sweep, given by name or by a frame of its cells.

    Raises: ConfigError for a frame that is of no sweep, or of several, and for what is neither
    """
    if isinstance(experiment, str):
        return experiment
    if not isinstance(experiment, pd.DataFrame):
        raise ConfigError(
            f"{type(experiment).__name__} names no experiment; give its name, or a frame that harness.sweep "
            "or harness.records returned"
        )
    named = set(experiment["sweep"]) if "sweep" in experiment else set()
    found = sorted(named) or [experiment.attrs[key] for key in ("sweep",) if key in experiment.attrs]
    if len(found) != 1:
        raise ConfigError(f"this frame is of {len(found)} sweeps ({', '.join(found)}); give one by its name")
    return str(found[0])


def _cells(frame: pd.DataFrame) -> set[str]:
    if "cell" not in frame:
        raise ConfigError(
            "this frame has no column 'cell'; give one that harness.sweep or harness.records returned"
        )
    return set(frame["cell"])
