"""Cells whose run of a stage is not that of the others: other code, data or libraries, or a busy machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.report.levels import Settings, level_settings
from harness.report.record import Record, label
from harness.report.runs import measuring


def other_runs(records: Sequence[Record]) -> dict[str, str]:
    """Cells whose run of a stage is another than its config alone explains: other code, data or libraries.

    A factor touches a stage where the stage's key differs between most pairs of records that differ in this
    factor alone. Under equal levels of those, and one seed of the stage, the run must be one; a level that
    sets an axis which others leave alone (`position` among contexts) may have a run of its own.
    """
    marks: dict[str, str] = {}
    settings_of = level_settings(records[-1].experiment)
    names = dict.fromkeys(
        str(s["stage"])
        for r in records
        for s in r.data.get("stages", ())
        if s["stage"] not in measuring() and s.get("key")
    )
    for name in names:
        runs = {
            r.cell: (str(s["key"]), s.get("seed"))
            for r in records
            for s in r.data.get("stages", ())
            if s["stage"] == name and s.get("key")
        }
        those = [r for r in records if r.cell in runs]
        touching = [f for f in records[-1].levels if touches(f, those, runs)]
        groups: dict[tuple[Any, ...], list[Record]] = {}
        for r in those:
            which = (runs[r.cell][1], axes_set(r, settings_of), *(r.levels.get(f, "") for f in touching))
            groups.setdefault(which, []).append(r)
        for members in groups.values():
            counts = Counter(runs[r.cell][0] for r in members)
            common, n = counts.most_common(1)[0]
            for r in members:
                if n > len(members) / 2 and runs[r.cell][0] != common:
                    marks.setdefault(
                        r.cell, f"{name} is another run than its config explains: code or inputs differ"
                    )
    return marks


def axes_set(record: Record, settings_of: Settings) -> frozenset[str]:
    """The axes and stages whose options the levels of a record set."""
    sets = (settings_of.get(factor, {}).get(label(level), {}) for factor, level in record.levels.items())
    return frozenset(key.partition(".")[0] for keys in sets for key in keys)


def touches(factor: str, records: Sequence[Record], runs: Mapping[str, tuple[str, Any]]) -> bool:
    """Whether the key of a stage differs between most levels of a factor, all else equal."""
    others: dict[tuple[Any, ...], list[str]] = {}
    for r in records:
        rest = (r.seed, *(v for f, v in r.levels.items() if f != factor))
        others.setdefault(rest, []).append(runs[r.cell][0])
    same = sum(max(Counter(keys).values()) - 1 for keys in others.values())
    return 2 * same < sum(len(keys) - 1 for keys in others.values())


def beside_others(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """(cell, footnote) of measurements of speed that waited for the machine to be quiet in vain."""
    for record in records:
        busy = [s for s in record.data.get("stages") or () if s.get("alone") is False]
        if busy:
            names = ", ".join(" ".join(filter(None, (s["stage"], s.get("part")))) for s in busy)
            yield (
                record.cell,
                f"{names}: measured beside other work on the machine: its speeds are too low",
            )
