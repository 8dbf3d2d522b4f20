"""The form of a layout: what conf/report/<name>.yaml, or an experiment's `report:`, may hold."""

from typing import Any, Literal, NotRequired, TypedDict

from harness.stated import Claim

Words = str | list[str] | None
"""One, several, or none."""


class Metric(TypedDict):
    """One metric of a table; `harness.report.layout.MetricColumn` says what each key means."""

    metric: str
    label: NotRequired[str]
    format: NotRequired[str]
    scale: NotRequired[float]
    unit: NotRequired[str]
    better: NotRequired[Literal["higher", "lower", "none"] | None]
    optional: NotRequired[bool]
    note: NotRequired[str]


class Row(TypedDict):
    """Published values of one row, by metric."""

    where: dict[str, Any]
    values: dict[str, float]


class Published(TypedDict):
    """The survey's values and the settings under which they were had."""

    rows: list[Row]
    source: NotRequired[str]
    scale: NotRequired[dict[str, float]]
    settings: NotRequired[dict[str, Any]]
    levels: NotRequired[dict[str, dict[Any, dict[str, Any]]]]
    order: NotRequired[dict[str, list[Any]]]
    roles: NotRequired[dict[str, dict[Any, list[dict[str, Any]]]]]


class Scaling(TypedDict):
    """A scaling law to fit."""

    loss: str
    size: str
    data: str
    held_out: NotRequired[dict[str, Any]]


class Reference(TypedDict):
    """A table that needs no records."""

    columns: list[str]
    rows: list[list[str | float]]
    overrides: NotRequired[dict[str, str | dict[Any, str]]]
    presets: NotRequired[bool]
    axes: NotRequired[dict[str, str]]


class OptionalClaim(Claim):
    """A claim of a layout, which experiments of other metrics and levels use too."""

    optional: NotRequired[bool]
    """Left out where the records have no such metric, factor or level."""


class Layout(TypedDict, total=False):
    """A table; `harness.report.layout.Layout` says what each key means."""

    name: str
    title: str
    alias: str
    rows: Words
    columns: Words
    metrics: list[str | Metric] | None
    where: dict[str, Any]
    group: str
    best: bool
    arrows: bool
    interval: Literal["ci", "sd", "none"]
    primary: Words
    baseline: dict[str, Any]
    labels: dict[Any, str | float]
    footnotes: Words
    claims: list[str | OptionalClaim] | None
    published: Published
    scaling: Scaling
    planned: bool
    reference: Reference
