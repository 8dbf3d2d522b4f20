"""The survey's published values beside ours, and where the setting is not the same, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from harness.errors import ConfigError, HarnessError
from harness.report.frames import Results
from harness.report.layout import Layout
from harness.report.records import Record, flatten, label
from harness.report.statistics import Estimate, estimate
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
        where = place_of(row["where"], results)
        if where is None:
            continue
        differs = tuple(differences(spec, where, results))
        for name, value in row["values"].items():
            metric, ours = ours_at(results, where, name)
            scale = float(spec.get("scale", {}).get(name, spec.get("scale", {}).get("*", 1)))
            gap = () if ours is not None else (f"no {name} was measured here",)
            found.append(
                Beside(
                    where=where,
                    metric=metric,
                    published=float(value) * scale,
                    ours=ours,
                    differs=(*differs, *gap),
                )
            )
    return found


def place_of(wanted: Mapping[str, Any], results: Results) -> dict[str, str] | None:
    """The same levels in our spelling; None where the experiment has no such factor or level."""
    where = {}
    for factor, level in wanted.items():
        known = {name.casefold(): name for name in results.factors.get(factor, [])}
        if label(level).casefold() not in known:
            return None
        where[factor] = known[label(level).casefold()]
    return where if results.configurations(where) else None


def ours_at(results: Results, where: Mapping[str, str], name: str) -> tuple[str, Estimate | None]:
    try:
        metric = results.resolve(name)
    except HarnessError:
        return name, None
    measured = results.measured(where, metric)
    return metric, estimate(measured) if measured else None


def differences(spec: Mapping[str, Any], where: Mapping[str, str], results: Results) -> Iterator[str]:
    """Settings of the published value that the records behind ours do not have."""
    wanted = list(spec.get("settings", {}).items())
    for factor, levels in spec.get("levels", {}).items():
        wanted += levels.get(where.get(factor), {}).items()
    records = [r for v in results.configurations(where) for r in results.records[v].values()]
    for key, pattern in wanted:
        values = {setting(record, key) for record in records}
        other = sorted(v for v in values if not fnmatch(v.lower(), label(pattern).lower()))
        if other:
            yield f"{key} is {', '.join(other)}, published {label(pattern)}"


def setting(record: Record, key: str) -> str:
    """A config value as text; `absent` where there is none."""
    config = dict(flatten(record.data["config"]))
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
        f"| {escape_markdown(source)} | metric | ours | published | same setting? |",
        "|---|---|---:|---:|---|",
    ]
    for b in found:
        ours = "-" if b.ours is None else f"{b.ours.mean:.4g}"
        answer = "yes" if b.same else "no: " + escape_markdown("; ".join(b.differs))
        place = escape_markdown(", ".join(layout.text(v) for v in b.where.values()))
        lines.append(f"| {place} | {escape_markdown(b.metric)} | {ours} | {b.published:.4g} | {answer} |")
    return "\n".join(lines).replace("*", "\\*") + "\n"


def as_data(found: list[Beside]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            **b.where,
            "metric": b.metric,
            "ours": None if b.ours is None else float(f"{b.ours.mean:.6g}"),
            "published": float(f"{b.published:.6g}"),
            "same_setting": b.same,
            "differs": list(b.differs),
        }
        for b in found
    ]
