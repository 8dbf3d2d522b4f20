"""The survey's published values beside ours, and where the setting is not the same, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from harness.errors import ConfigError, HarnessError
from harness.report.frames import MetricInfo, Results, column_of
from harness.report.layout import Layout
from harness.report.record import Record, label
from harness.report.statistics import Estimate, estimate
from harness.report.table import Column
from harness.report.writers import escape_markdown


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A published value and ours at the same place of the table."""

    where: Mapping[str, str]
    metric: str
    published: float
    """In our unit."""
    ours: Estimate | None
    differs: tuple[str, ...]
    """What of the setting is another; empty where it is the same."""
    at: str = ""
    """The published row, in the source's words."""
    scale: float = 1.0
    """Factor on both numbers where they are printed, as the table's column has it."""
    unit: str = ""
    """After scaling."""

    @property
    def name(self) -> str:
        """The metric with the unit in which it is printed."""
        return f"{self.metric} ({self.unit})" if self.unit else self.metric

    @property
    def numbers(self) -> tuple[str, str]:
        """Ours and the published one as they are printed."""
        ours = "-" if self.ours is None else f"{self.ours.mean * self.scale:.4g}"
        return ours, f"{self.published * self.scale:.4g}"

    @property
    def same(self) -> bool:
        return self.ours is not None and not self.differs


def beside(layout: Layout, results: Results) -> list[Beside]:
    """Every published value whose place in the table these records fill, in the table's order.

    Raises: ConfigError if the layout has no published values
    """
    spec = layout.published
    if not spec:
        raise ConfigError(
            f"--compare published: table '{layout.name}' has no published values; "
            "quantization, instruction_tuning, compute and ability have"
        )
    found = []
    for row in spec["rows"]:
        for where, unmatched in places_of(row["where"], spec, results):
            differs = (*unmatched, *differences(spec, where, row["where"], results))
            for name, value in row["values"].items():
                metric, ours = ours_at(results, where, name)
                printed, unit = printed_as(metric, layout, results)
                scale = float(spec.get("scale", {}).get(name, spec.get("scale", {}).get("*", 1)))
                gap = () if ours is not None else (f"no {name} was measured here",)
                found.append(
                    Beside(
                        where=where,
                        metric=metric,
                        published=float(value) * scale,
                        ours=ours,
                        differs=(*differs, *gap),
                        at=" \u00b7 ".join(map(label, row["where"].values())),
                        scale=printed,
                        unit=unit,
                    )
                )
    return found


def printed_as(metric: str, layout: Layout, results: Results) -> tuple[float, str]:
    """Scale and unit of the table's column of a metric; raw where the table has none."""
    info = results.metrics.get(metric, MetricInfo(name=metric))
    for spec in layout.metrics:
        if f".{metric}".endswith(f".{spec.metric}"):
            return spec.scale, Column(where={}, spec=spec, info=info).unit
    return 1.0, info.unit


Place = tuple[dict[str, str], tuple[str, ...]]
"""Our levels that play the roles of a published row, and in which roles nothing of ours stands."""


def places_of(wanted: Mapping[str, Any], spec: Mapping[str, Any], results: Results) -> list[Place]:
    """Where a published row stands among our levels: by role, whatever our factors and levels are called.

    A role is played by the factor of its name, level by level: of the same name, else at the same place of
    `order`; or by any factor of whose level all records have the settings that `roles` states. A role that
    nothing here plays is named as a difference; a row of whose roles none is played has no place.
    """
    places: list[Place] = [({}, ())]
    for role, level in wanted.items():
        players = players_of(role, label(level), spec, results)
        missing = f"{role} is not a factor here, published {label(level)}"
        places = [
            ({**where, **player}, unmatched) if player else (where, (*unmatched, missing))
            for where, unmatched in places
            for player in players or [{}]
            if all(where.get(factor, own) == own for factor, own in player.items())
        ]
        if not players and role in results.factors:
            return []
    return [(where, unmatched) for where, unmatched in places if where and results.configurations(where)]


def players_of(role: str, level: str, spec: Mapping[str, Any], results: Results) -> list[dict[str, str]]:
    """Factor and level of ours, one each, that play a level of a role."""
    own = results.factors.get(role, [])
    known = {name.casefold(): name for name in own}
    if level.casefold() in known:
        return [{role: known[level.casefold()]}]
    order = list(map(label, spec.get("order", {}).get(role, ())))
    if own and level in order:
        place = order.index(level)
        return [{role: own[place]}] if place < len(own) else []
    settings = spec.get("roles", {}).get(role, {}).get(level)
    if not settings:
        return []
    found = []
    for factor, levels in results.factors.items():
        fits = [name for name in levels if plays(results, {factor: name}, settings)]
        # A factor all of whose levels fit does not vary the role.
        found += [{factor: name} for name in fits] if len(fits) < len(levels) else []
    return found


def plays(results: Results, where: Mapping[str, str], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all records with these levels have one of these groups of settings."""
    return all(
        any(
            all(fnmatch(setting(record, key).lower(), label(v).lower()) for key, v in patterns.items())
            for patterns in settings
        )
        for levels in results.configurations(where)
        for record in results.records[levels].values()
    )


def ours_at(results: Results, where: Mapping[str, str], name: str) -> tuple[str, Estimate | None]:
    try:
        metric = results.resolve(name)
    except HarnessError:
        return name, None
    measured = results.measured(where, metric)
    return metric, estimate(measured) if measured else None


def differences(
    spec: Mapping[str, Any], where: Mapping[str, str], row: Mapping[str, Any], results: Results
) -> Iterator[str]:
    """Settings of the published value that the records behind ours do not have."""
    wanted = list(spec.get("settings", {}).items())
    for role, levels in spec.get("levels", {}).items():
        wanted += levels.get(label(row.get(role)), {}).items()
    for role, level in row.items():
        if role in where and where[role].casefold() != label(level).casefold():
            yield f"{role} is {where[role]}, published {label(level)}"
    records = [r for v in results.configurations(where) for r in results.records[v].values()]
    for key, pattern in wanted:
        values = {setting(record, key) for record in records}
        other = sorted(v for v in values if not fnmatch(v.lower(), label(pattern).lower()))
        if other:
            yield f"{key} is {', '.join(other)}, published {label(pattern)}"


def setting(record: Record, key: str) -> str:
    """A config value as text; `absent` where there is none."""
    config = dict(record.leaves)
    value = config.get(key)
    if isinstance(value, list):
        return " ".join(map(label, value))
    return "absent" if value is None else label(value)


def markdown(found: list[Beside], layout: Layout) -> str:
    """Our value and the published one, line by line."""
    source = layout.published.get("source", "")
    if not found:
        rows = layout.published["rows"]
        first = ", ".join(f"{f} = {v}" for f, v in rows[0]["where"].items())
        return f"No cell stands at the place of a published value of {source} (they are at, say, {first}).\n"
    lines = [
        f"| here | {escape_markdown(source)} | metric | ours | published | same setting? |",
        "|---|---|---|---:|---:|---|",
    ]
    for b in found:
        ours, theirs = b.numbers
        answer = "yes" if b.same else "no: " + escape_markdown("; ".join(b.differs))
        place = escape_markdown(", ".join(layout.text(v) for v in b.where.values()))
        at = escape_markdown(b.at)
        lines.append(f"| {place} | {at} | {escape_markdown(b.name)} | {ours} | {theirs} | {answer} |")
    return "\n".join(lines).replace("*", "\\*") + "\n"


OWN = ("published_at", "metric", "ours", "published", "same_setting", "differs")
"""What a published value says beside its levels."""


def as_data(found: list[Beside]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            **{column_of(factor, OWN): level for factor, level in b.where.items()},
            "published_at": b.at,
            "metric": b.metric,
            "ours": None if b.ours is None else float(f"{b.ours.mean:.6g}"),
            "published": float(f"{b.published:.6g}"),
            "same_setting": b.same,
            "differs": list(b.differs),
        }
        for b in found
    ]
