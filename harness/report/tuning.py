"""What a report says of tuned values: how they were chosen, and where the best lies on an edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.records import Record, label


def tuning_notes(records: Sequence[Record]) -> list[str]:
    """How the values were chosen, and what was chosen for which method: sentences for the whole table."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        tune = record.data.get("tune")
        if tune and tune.get("chosen") is not None:
            values = ", ".join(f"{path} = {shown(value)}" for path, value in tune["chosen"].items())
            found.setdefault((method(record), values), tune)
    if not found:
        return []
    some = next(iter(found.values()))
    how = (
        f"Tuned: {len(some['trials'])} trials for every method ({some['search']}), chosen by "
        f"{some['metric'].rpartition('.')[2]} on the {some['split']} split at seed {some['seed']}; nothing "
        "of that split is reported."
    )
    return [how, "Chosen: " + "; ".join(f"{name}: {values}" for name, values in found) + "."]


def tuning_marks(records: Sequence[Record]) -> dict[str, list[str]]:
    """Footnotes, by cell: the best value has no tried value beyond it."""
    return {
        record.cell: [f"tuned to an edge, so a better value may lie beyond: {text}" for text in tune["edge"]]
        for record in records
        if (tune := record.data.get("tune")) and tune["edge"]
    }


def method(record: Record) -> str:
    return ", ".join(record.levels.values()) or record.cell


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value)
