"""What a report says of tuned values: how they were chosen, and where the best lies on an edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.arrange import factor_levels
from harness.report.record import Record, label


def tuning_notes(records: Sequence[Record]) -> list[str]:
    """How the values were chosen, and what was chosen for which methods: sentences for the whole table."""
    tuned = [(r, tune) for r in records if (tune := r.data.get("tune")) and tune.get("chosen")]
    if not tuned:
        return []
    _, some = tuned[0]
    how = (
        f"Tuned: {len(some['trials'])} trials for every method ({some['search']}), chosen by "
        f"{some['metric'].rpartition('.')[2]} on the {some['split']} split at seed {some['seed']}; nothing "
        "of that split is reported."
    )
    chosen: dict[str, dict[tuple[tuple[int, ...], str], None]] = {}
    for record, tune in tuned:
        values = ", ".join(f"{path} = {shown(value)}" for path, value in tune["chosen"].items())
        chosen.setdefault(values, {})[method(record)] = None
    alike = sorted((sorted(methods), values) for values, methods in chosen.items())
    parts = [f"{' | '.join(name for _, name in methods)}: {values}" for methods, values in alike]
    return [how, f"Chosen: {'; '.join(parts)}."]


def tuning_marks(records: Sequence[Record]) -> dict[str, list[str]]:
    """Footnotes, by cell: the best value has no tried value beyond it."""
    return {
        record.cell: [f"tuned to an edge, so a better value may lie beyond: {text}" for text in tune["edge"]]
        for record in records
        if (tune := record.data.get("tune")) and tune["edge"]
    }


def method(record: Record) -> tuple[tuple[int, ...], str]:
    """What was tuned, by the factors that `tune.by` names: its place among their levels, and its name."""
    factors = factor_levels(record.experiment.get("factors") or {})
    by = (record.experiment.get("tune") or {}).get("by") or list(record.levels)
    found = {name: record.levels[name] for name in by if name in record.levels}
    place = tuple(
        factors[name].index(level) for name, level in found.items() if level in factors.get(name, ())
    )
    return place, ", ".join(found.values()) or record.cell


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value)
