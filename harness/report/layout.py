"""Layouts: what a table shows and how, read from conf/report/<name>.yaml or made from the factors."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.errors import ConfigError, UnknownNameError
from harness.plan.claims import stated
from harness.report.records import label, visible

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

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ConfigError(f"metrics: {self.metric}: scale={self.scale:g} must be above 0")
        try:
            format(0.5, self.format)
        except ValueError as error:
            text = f"metrics: {self.metric}: format={self.format!r}: {error}; e.g. '.2f'"
            raise ConfigError(text) from error


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
    """Layout name -> its file."""
    return {path.stem: path for path in sorted(conf_folder().glob("*.yaml"))}


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
    given = dict(raw)
    metrics = given.get("metrics") or ()
    if isinstance(metrics, str | Mapping):
        metrics = (metrics,)
    given["metrics"] = tuple(
        build(MetricColumn, {"metric": m} if isinstance(m, str) else m, where=f"{where}.metrics")
        for m in sequence(metrics, where=f"{where}.metrics")
    )
    claims = given.get("claims") or ()
    claims = (claims,) if isinstance(claims, str | Mapping) else sequence(claims, where=f"{where}.claims")
    given["claims"] = tuple(stated(claim) for claim in claims)
    layout: Layout = build(Layout, given, where=where)
    placed = Counter((*layout.rows, *layout.columns))
    twice = [factor for factor, count in placed.items() if count > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[0]} stands twice in rows and columns; a factor has one place")
    return layout


def build(kind: Any, raw: Any, *, where: str) -> Any:
    """A dataclass from a mapping, with unknown keys and wrong values named."""
    known, hints = {f.name: f for f in dataclasses.fields(kind)}, get_type_hints(kind)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}={raw!r} must be a mapping with some of {', '.join(known)}")
    given = {}
    for key, value in raw.items():
        if key not in known:
            raise UnknownNameError(what=f"option of {where}", name=str(key), known=known)
        if value is not None:
            given[key] = typed(value, hints[key], where=f"{where}.{key}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(f"{where} is not complete: {error}") from error


def typed(value: Any, hint: Any, *, where: str) -> Any:
    """A value of YAML as its field declares it.

    Raises: ConfigError, with what would be one
    """
    kinds = [hint, *(get_args(hint) if get_origin(hint) in (Union, UnionType) else ())]
    choices = [choice for k in kinds if get_origin(k) is Literal for choice in get_args(k)]
    if choices:
        if value not in choices:
            raise ConfigError(f"{where}={value!r} must be one of {', '.join(map(repr, choices))}")
    elif get_origin(hint) is tuple:
        own = (value,) if isinstance(value, str) else sequence(value, where=where)
        if get_args(hint)[0] is str:
            return tuple(typed(each, str, where=where) for each in own)
        return tuple(own)
    elif get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={value!r} must be a mapping")
        texts = get_args(hint)[1] is str
        return {label(key): str(each) if texts else each for key, each in value.items()}
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{where}={value!r} must be a number")
    elif not isinstance(value, hint):
        raise ConfigError(f"{where}={value!r} must be {'text: quote it' if hint is str else 'true or false'}")
    return value


def sequence(value: Any, *, where: str) -> Sequence[Any]:
    """Raises: ConfigError for what is no list"""
    if isinstance(value, list | tuple):
        return value
    raise ConfigError(f"{where}={value!r} must be a list")
