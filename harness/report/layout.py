"""Layouts: what a table shows and how, read from conf/report/<name>.yaml or made from the factors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ConfigError, UnknownNameError
from harness.forms import misfit
from harness.report import layout_form
from harness.report.quantities import last_name
from harness.report.record import label, visible

if TYPE_CHECKING:
    from harness.report.frames import Results

Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True, kw_only=True)
class MetricColumn:
    """One metric of a table."""

    metric: str
    """Its last name parts, e.g. `recall.acc`; a measured fact is `<stage>.<fact>`."""
    label: str = ""
    """Heading; the metric's own name where empty."""
    format: str = ""
    """Python format of the value, e.g. `.2f`; digits follow the uncertainty where empty."""
    scale: float = 1.0
    """Factor on value and interval before printing, e.g. 100 for percent."""
    unit: str = ""
    """Unit after scaling; the metric's own where empty."""
    better: Better | None = None
    """Which direction is better; the metric's own where null."""
    optional: bool = False
    """Whether a column is left out where none of its records has the metric."""
    note: str = ""
    """A footnote on the heading."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table: which factors stand where, which metrics, which marks."""

    name: str = "default"
    title: str = ""
    alias: str = ""
    """The survey's name of the table, e.g. `T10`."""
    rows: tuple[str, ...] = ()
    """Factors down the side, outermost first."""
    columns: tuple[str, ...] = ()
    """Factors along the top, above the metrics; factors in neither are averaged over."""
    metrics: tuple[MetricColumn, ...] = ()
    """All measured metrics where empty."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Factor -> levels to keep."""
    group: str = ""
    """Factor of the rows after whose levels a rule is drawn; best values are sought inside a group."""
    best: bool = True
    """Whether the best of a column is marked, and what cannot be excluded from being it."""
    arrows: bool = True
    """Whether headings say which direction is better."""
    interval: Literal["ci", "sd", "none"] = "ci"
    """What follows the value: half the 95 % interval, the standard deviation over seeds, or nothing."""
    primary: tuple[str, ...] = ()
    """Metrics to decide on; the experiment's own where empty, else every measured quality."""
    baseline: Mapping[str, Any] = field(default_factory=dict)
    """Overrides the experiment's."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Factor or level -> how it is printed."""
    footnotes: tuple[str, ...] = ()
    claims: tuple[Mapping[str, Any], ...] = ()
    """Claims of the literature that this table can settle, beside the experiment's own."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """The survey's values and the settings under which they were had."""
    scaling: Mapping[str, Any] = field(default_factory=dict)
    """A scaling law to fit: `loss`, `size` and `data` name metrics or facts, `held_out` (factor -> level)
    what to foretell."""
    planned: bool = False
    """Whether the planner's version of the survey's compute table follows."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Rows and columns of a reference table, which needs no records."""

    def text(self, name: str) -> str:
        """How a factor or level is printed."""
        return visible(str(self.labels.get(name, name)))


def conf_folder() -> Path:
    """conf/report, in a checkout or in the wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf" / "report"
    return inside if inside.is_dir() else package.parent / "conf" / "report"


def shipped() -> dict[str, Path]:
    """Layout name -> its file: harness's, and those in `report/` of the folders that plugins ship.

    Raises: ConfigError where two are called alike
    """
    from harness.registry import index as registry_index

    folders = [conf_folder(), *(Path(path) / "report" for path in registry_index.read()["conf"])]
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        if path.stem in found:
            raise ConfigError(f"{path} and {found[path.stem]} are both the layout '{path.stem}'; rename one")
        found[path.stem] = path
    return found


def load_layout(chosen: str | Mapping[str, Any] | None) -> Layout:
    """A layout by name, alias, path, or as an inline mapping (an experiment's `report:`).

    Raises: UnknownNameError, ConfigError
    """
    if chosen is None:
        return Layout()
    if isinstance(chosen, Mapping):
        return parse(chosen, where="report")
    files = shipped()
    path = Path(chosen) if chosen.endswith((".yaml", ".yml")) else files.get(chosen.lower())
    if path is None:
        by_alias = {str(read_yaml(p).get("alias", "")).lower(): p for p in files.values()}
        path = by_alias.get(chosen.lower())
    if path is None:
        raise UnknownNameError(what="table layout", name=chosen, known=files)
    if not path.exists():
        raise ConfigError(f"--table {path} does not exist; shipped layouts are {', '.join(files)}")
    return parse({"name": path.stem, **read_yaml(path)}, where=str(path.name))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises: ConfigError
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping, e.g. `rows: [peft]`")
    return loaded


def parse(raw: Mapping[str, Any], *, where: str) -> Layout:
    """A checked Layout.

    Raises: ConfigError for a key or a value that no layout has
    """
    if wrong := misfit(raw, layout_form.Layout, where):
        raise ConfigError(wrong)
    _refuse_unknown(raw, layout_form.Layout, where=where)
    given = {key: value for key, value in raw.items() if value is not None}
    for key in ("rows", "columns", "footnotes", "primary"):
        value = given.get(key, ())
        given[key] = (value,) if isinstance(value, str) else tuple(value)
    given["claims"] = tuple({"says": c} if isinstance(c, str) else dict(c) for c in given.get("claims", ()))
    given["labels"] = {label(name): label(text) for name, text in given.get("labels", {}).items()}
    given["metrics"] = tuple(_column(metric, where=where) for metric in given.get("metrics", ()))
    _refuse_unknown(given.get("scaling", {}), layout_form.Scaling, where=f"{where}.scaling")
    if given.get("reference"):
        _check_reference(given["reference"], where=where)
    placed = Counter((*given["rows"], *given["columns"]))
    twice = [factor for factor, count in placed.items() if count > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[0]} stands twice in rows and columns; a factor has one place")
    return Layout(**given)


def _refuse_unknown(raw: Mapping[str, Any], form: Any, *, where: str) -> None:
    """Refuse a key that a form does not have.

    Raises: UnknownNameError
    """
    for key in raw:
        if key not in form.__annotations__:
            raise UnknownNameError(what=f"option of {where}", name=str(key), known=form.__annotations__)


def _column(raw: str | Mapping[str, Any], *, where: str) -> MetricColumn:
    """A metric of a table.

    Raises: ConfigError for a format that is none of a number
    """
    given = {"metric": raw} if isinstance(raw, str) else raw
    _refuse_unknown(given, layout_form.Metric, where=f"{where}.metrics")
    column = MetricColumn(**given)
    if column.scale <= 0:
        raise ConfigError(f"{where}.metrics: {column.metric}: scale={column.scale:g} must be above 0")
    try:
        format(1.0, column.format)
    except ValueError as error:
        raise ConfigError(
            f"{where}.metrics: {column.metric}: format={column.format!r} is no format of a number: {error}; "
            "use e.g. '.2f'"
        ) from error
    return column


def _check_reference(raw: Mapping[str, Any], *, where: str) -> None:
    """Look at the rows of a table of what exists.

    Raises: ConfigError where one is not as long as the columns, or no column says how to have the same here
    """
    columns = raw["columns"]
    for place, row in enumerate(raw["rows"]):
        if len(row) != len(columns):
            raise ConfigError(
                f"{where}.reference.rows.{place} has {len(row)} entries, and there are {len(columns)} columns"
            )
    if HERE not in columns and "overrides" not in raw:
        raise ConfigError(f"{where}.reference needs `overrides`, or a column '{HERE}' with them")
    for column in raw.get("overrides", ()):
        if column not in columns:
            raise UnknownNameError(
                what=f"column of {where}.reference (in overrides)", name=column, known=columns
            )


HERE = "harness"
"""The column of a reference table that says how to have the same here."""


def default_metrics(results: Results) -> tuple[MetricColumn, ...]:
    """Every metric; where that is many, what the experiment decides on and what a reader asks first.

    Numbers of groups of items (`acc.length=64`), which figures show, are not among these.
    """
    names = [name for name, m in results.metrics.items() if m.measured]
    if len(names) > MANY:
        decided = results.declared(results.all_records()[-1].experiment.get("primary") or ())
        names = [name for name in names if name in decided or asked_first(name)]
    return tuple(MetricColumn(metric=name) for name in names)


def asked_first(metric: str) -> bool:
    """Whether a metric stands in a table of few columns."""
    kept = HEADLINES.get(metric.partition(".")[0])
    return "=" not in metric and (kept is None or last_name(metric) in kept)


MANY = 8
HEADLINES = {"efficiency": ("weights_in_memory", "decode"), "perplexity": ("bits_per_byte",)}
"""Evaluator -> its metrics in a table that nobody laid out, once there are more than MANY."""


def fit(layout: Layout, results: Results) -> Layout:
    """The layout with what it leaves open filled in from the records.

    Without rows and columns, the last of several factors goes on top if its columns stay readable.
    Raises: UnknownNameError for a factor or metric that the records do not have
    """
    factors = list(results.factors)
    rows, columns = list(layout.rows), list(layout.columns)
    for factor in (*rows, *columns, *layout.where, *([layout.group] if layout.group else [])):
        if factor not in factors:
            raise UnknownNameError(
                what=f"factor of experiment '{results.name}' (asked for by table '{layout.name}')",
                name=factor,
                known=factors,
            )
    for factor, level in layout.baseline.items():
        results.configurations({factor: label(level)})  # raises for an unknown one
    if not rows and not columns:
        on_top = len(factors) > 1 and len(results.factors[factors[-1]]) <= 4
        rows, columns = (factors[:-1], factors[-1:]) if on_top else (factors, [])
    metrics = layout.metrics or default_metrics(results)
    kept = []
    for column in metrics:
        try:
            results.resolve(column.metric)
        except UnknownNameError:
            if not column.optional:
                raise
        else:
            kept.append(column)
    return dataclasses.replace(
        layout,
        rows=tuple(rows),
        columns=tuple(columns),
        metrics=tuple(kept),
        group=layout.group or (rows[0] if len(rows) > 1 else ""),
    )
